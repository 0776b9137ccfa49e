"""torch's RNN, GRU and LSTM, layer by layer, as the function that loops over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.frontends.activations import Activation
from autotune.frontends.recurrence import GATES, Recurrence
from autotune.frontends.recurrence_function import emit_recurrence

OPERATORS = {
    "lstm.input": ("LSTM", ("Sigmoid", "Tanh", "Tanh")),
    "gru.input": ("GRU", ("Sigmoid", "Tanh")),
    "rnn_tanh.input": ("RNN", ("Tanh",)),
    "rnn_relu.input": ("RNN", ("Relu",)),
}
"""Our operator and its activations, by torch's name."""

ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""Where torch has the gates: ours are update, reset, hidden, and input, output, forget, cell."""


class Layers:
    """A stack of recurrent layers that is being built.

    ``weights`` are torch's: those of each direction of each layer in turn, of the input, of the
    state and, where ``biased``, the biases of both.
    """

    def __init__(
        self, builder: Any, name: str, weights: Sequence[Any], biased: bool, both: bool
    ) -> None:
        self.builder = builder
        self.operator, kinds = OPERATORS[name]
        self.directions = 2 if both else 1
        self.kinds: tuple[Activation, ...] = tuple((k, 1.0, 1.0) for k in kinds) * self.directions
        self.biased = biased
        count = (4 if biased else 2) * self.directions
        self.layers = [weights[i : i + count] for i in range(0, len(weights), count)]

    def run(self, x: Any, first: Sequence[Any]) -> tuple[Any, ...]:
        """The states of the last layer, and the last ones of all.

        ``x`` is [steps, batch, width], ``first`` and what is returned after the states are
        [layers times directions, batch, size]. Raises ``ValueError`` for another dtype or a
        projected state, which the loop does not have.
        """
        from tvm import relax

        op, emit = relax.op, self.builder.emit
        last: list[list[Any]] = [[] for _ in first]
        for number, weights in enumerate(self.layers):
            start = number * self.directions
            part = [_slice(emit, f, 0, start, start + self.directions) for f in first]
            outputs = self._layer(x, part, weights)
            for found, one in zip(last, outputs[1:], strict=True):
                found.append(one)
            states = emit(op.permute_dims(outputs[0], [0, 2, 1, 3]))
            steps, batch, directions, size = _shape(states)
            x = emit(op.reshape(states, [steps, batch, directions * size]))
        return x, *(emit(op.concat(parts, 0)) for parts in last)

    def _layer(self, x: Any, first: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
        from tvm import relax

        op, emit = relax.op, self.builder.emit
        steps, batch, width = _shape(x)
        rows, size = _shape(weights[1])
        gates = GATES[self.operator]
        if rows != gates * size or any(str(v.ty.dtype) != "float32" for v in (x, *weights)):
            raise ValueError("a recurrence of another dtype, or with a projected state")
        spec = Recurrence(
            self.operator, steps, batch, size, self.directions, self.kinds, after=True
        )
        wide = self.directions * gates * spec.wide
        parts = [weights[i :: len(weights) // self.directions] for i in range(len(weights))]

        def filled(kind: int, *rest: int) -> Any:
            """Weights of all directions, [directions, gates, wide, ...]."""
            return emit(op.concat([self._gates(spec, w, *rest) for w in parts[kind]], 0))

        of_input = emit(op.permute_dims(emit(op.reshape(filled(0, width), [wide, width]))))
        of_state = emit(op.permute_dims(filled(1, size), [0, 1, 3, 2]))
        projection = emit(op.matmul(emit(op.reshape(x, [steps * batch, width])), of_input))
        shape = [self.directions, gates * spec.wide]
        bias = relax.const(np.zeros(shape, np.float32))
        if self.biased:
            added = filled(2)
            if self.operator == "GRU":
                bias = emit(op.reshape(filled(3), shape))
            else:
                added = emit(op.add(added, filled(3)))
            projection = emit(op.add(projection, emit(op.reshape(added, [wide]))))
        inputs = [projection, of_state, *first, *([bias] if self.operator == "GRU" else [])]
        made = emit_recurrence(self.builder, spec, inputs)
        return [emit(relax.TupleGetItem(made, i)) for i in range(1 + spec.states)]

    def _gates(self, spec: Recurrence, weight: Any, *rest: int) -> Any:
        """A weight of one direction in our order of gates, filled up: [1, gates, wide, ...]."""
        from tvm import relax

        op, emit = relax.op, self.builder.emit
        apart = emit(op.reshape(weight, [1, spec.gates, spec.size, *rest]))
        order = relax.const(np.array(ORDER[self.operator], np.int64))
        apart = emit(op.take(apart, order, 1, mode="clip"))
        missing = spec.wide - spec.size
        if not missing:
            return apart
        zeros = relax.const(np.zeros([1, spec.gates, missing, *rest], np.float32))
        return emit(op.concat([apart, zeros], 2))


def _slice(emit: Any, value: Any, axis: int, begin: int, end: int) -> Any:
    from tvm import relax

    if (begin, end) == (0, _shape(value)[axis]):
        return value
    return emit(relax.op.strided_slice(value, axes=[axis], begin=[begin], end=[end]))


def _shape(value: Any) -> list[int]:
    return [int(extent) for extent in value.ty.shape]
