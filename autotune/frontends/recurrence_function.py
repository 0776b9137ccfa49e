"""A whole RNN, GRU or LSTM as one function: a loop over steps around one step.

What multiplies the inputs is not part of it: it does not depend on the state, so it is one product
for all steps, made before. A step multiplies the state alone. Steps follow each other, so the loop
over them is inside of a block that no schedule takes apart; what a step does are blocks that
schedules tile, and which are the same whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from autotune.frontends.activations import expression, once
from autotune.frontends.recurrence import Recurrence


def emit_recurrence(builder: Any, spec: Recurrence, inputs: Sequence[Any]) -> Any:
    """A call of the function of ``spec`` in a Relax function that is being built: all its outputs.

    ``inputs`` are tensors of ``spec.inputs()``; the result is a variable of a tuple.
    """
    from tvm import relax

    function = builder.add_func(recurrent_function(spec), spec.operator.lower())
    types = [relax.TensorType(shape, "float32") for _, shape in spec.outputs()]
    return builder.emit(relax.call_tir(function, list(inputs), types))


def recurrent_function(spec: Recurrence) -> Any:
    """The ``tirx.PrimFunc`` of ``spec``, which takes ``spec.inputs()`` and ``spec.outputs()``."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    with IRBuilder() as builder:
        with T.prim_func(s_tir=True, private=True):
            arguments = {}
            for name, shape, dtype in spec.inputs():
                arguments[name] = T.arg(name, T.buffer(shape, dtype))
            for name, shape in spec.outputs():
                arguments[name] = T.arg(name, T.buffer(shape, "float32"))
            T.func_attr({"tirx.noalias": True})
            with T.serial(0, spec.directions) as d, T.sblock("recurrence"):
                _Body(spec, arguments, T.axis.spatial(spec.directions, d)).emit()
        return builder.get()


class _Body:
    """Emits the blocks of one direction: those before the steps, of a step, and after them."""

    def __init__(self, spec: Recurrence, arguments: dict[str, Any], direction: Any) -> None:
        self.spec, self.arguments, self.d = spec, arguments, direction

    def emit(self) -> None:
        from tvm.script.ir_builder import tirx as T

        spec = self.spec
        T.reads(*(_whole(self.arguments[name]) for name, *_ in spec.inputs()))
        T.writes(*(_whole(self.arguments[name]) for name, _ in spec.outputs()))
        shape = (spec.batch, spec.wide)
        # What a step reads and what it writes: panels of a step read the whole state before it.
        self.old = [_buffer(shape, f"old{i}") for i in range(spec.states)]
        self.new = [_buffer(shape, f"new{i}") for i in range(spec.states)]
        for i in range(spec.states):
            first = self.arguments[f"first{i}"]
            with ExitStack() as stack:
                b, h = self._block(stack, "start")
                value = first[self.d, b, h]
                if spec.wide > spec.size:
                    value = T.if_then_else(h < spec.size, value, T.float32(0.0))
                T.buffer_store(self.old[i], value, [b, h])
        with T.serial(0, spec.steps) as step:
            # Two blocks, so that within each nothing is written that was read before.
            for name, part in (("step", self._step), ("carry", self._carry)):
                with T.sblock(name):
                    self.at = self._place(T.axis.opaque(spec.steps, step))
                    part()
        for i in range(spec.states):
            with ExitStack() as stack:
                b, h = self._block(stack, "last", spec.size)
                T.buffer_store(self.arguments[f"last{i}"], self.old[i][b, h], [self.d, b, h])

    def _place(self, step: Any) -> Any:
        """Where in the sequence ``step`` is."""
        from tvm.script.ir_builder import tirx as T

        spec, backward = self.spec, self.spec.steps - 1 - step
        if spec.directions == 2:
            return T.Select(self.d == 0, step, backward)
        return backward if spec.reverse else step

    def _step(self) -> None:
        spec = self.spec
        self.sums = [
            _buffer((spec.batch, gates, spec.wide), f"sums{i}")
            for i, gates in enumerate(spec.products)
        ]
        {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[spec.operator]()

    # The blocks of a step

    def _product(self, number: int, state: Any) -> None:
        """The products of ``state`` with the weights of some gates."""
        from tvm.script.ir_builder import tirx as T

        spec, total = self.spec, self.sums[number]
        weights = self.arguments[f"weights{number}"]
        gates = spec.products[number]
        # Columns innermost: unscheduled, as a reference, it walks through memory in order.
        loops = T.grid(spec.batch, gates, spec.size, spec.wide)
        with loops as (b, g, k, h), T.sblock("product"):
            vb, vg, vh = (
                T.axis.spatial(spec.batch, b),
                T.axis.spatial(gates, g),
                T.axis.spatial(spec.wide, h),
            )
            vk = T.axis.reduce(spec.size, k)
            with T.init():
                T.buffer_store(total, T.float32(0.0), [vb, vg, vh])
            term = state[vb, vk] * weights[self.d, vg, vk, vh]
            T.buffer_store(total, total[vb, vg, vh] + term, [vb, vg, vh])

    def _rnn(self) -> None:
        self._product(0, self.old[0])
        self._update(lambda b, h: [self._active(0, self._total(0, b, h))])

    def _lstm(self) -> None:
        self._product(0, self.old[0])
        self._update(self._cell)

    def _cell(self, b: Any, h: Any) -> list[Any]:
        """The state and the cell after a step; gates are input, output, forget and cell."""
        from tvm.script.ir_builder import tirx as T

        old = self.old[1][b, h]

        def gate(number: int, cell: Any) -> Any:
            total = self._total(number, b, h)
            if self.spec.peepholes:
                seen = self.arguments["peepholes"][self.d, number * self.spec.wide + h]
                total = total + seen * cell
            return self._active(0, total)

        new = self._active(1, self._total(3, b, h))
        i = once(gate(0, old))
        kept = T.float32(1.0) - i if self.spec.coupled else gate(2, old)
        cell = once(kept * old + i * new)
        return [gate(1, cell) * self._active(2, cell, clipped=False), cell]

    def _gru(self) -> None:
        """Gates are update, reset and hidden."""
        from tvm.script.ir_builder import tirx as T

        def mixed(update: Any, hidden: Any, b: Any, h: Any) -> list[Any]:
            z = once(update)
            return [(T.float32(1.0) - z) * hidden + z * self.old[0][b, h]]

        def gate(number: int, b: Any, h: Any) -> Any:
            return self._active(0, self._total(number, b, h) + self._bias(number, h))

        self._product(0, self.old[0])
        if self.spec.after:

            def after(b: Any, h: Any) -> list[Any]:
                product = self.sums[0][b, 2, h] + self._bias(2, h)
                hidden = self._active(1, self._input(2, b, h) + gate(1, b, h) * product)
                return mixed(gate(0, b, h), hidden, b, h)

            self._update(after)
            return
        held = [_buffer((self.spec.batch, self.spec.wide), name) for name in ("update", "reset")]

        def gated(b: Any, h: Any) -> list[tuple[Any, Any]]:
            return [(held[0], gate(0, b, h)), (held[1], gate(1, b, h) * self.old[0][b, h])]

        def before(b: Any, h: Any) -> list[Any]:
            total = self._input(2, b, h) + self.sums[1][b, 0, h] + self._bias(2, h)
            return mixed(held[0][b, h], self._active(1, total), b, h)

        self._each("gates", gated)
        self._product(1, held[1])
        self._update(before)

    # Parts of expressions

    def _input(self, gate: int, b: Any, h: Any) -> Any:
        spec = self.spec
        column = (self.d * spec.gates + gate) * spec.wide + h
        return self.arguments["projection"][self.at * spec.batch + b, column]

    def _total(self, gate: int, b: Any, h: Any) -> Any:
        """What a gate gets of the inputs and of the state."""
        return self._input(gate, b, h) + self.sums[0][b, gate, h]

    def _bias(self, gate: int, h: Any) -> Any:
        return self.arguments["bias"][self.d, gate * self.spec.wide + h]

    def _active(self, number: int, value: Any, clipped: bool = True) -> Any:
        """``value`` under one of the direction's activations."""
        from tvm.script.ir_builder import tirx as T

        spec = self.spec
        if spec.clip and clipped:
            value = T.max(T.min(value, T.float32(spec.clip)), T.float32(-spec.clip))
        count = len(spec.activations) // spec.directions
        kinds = [spec.activations[d * count + number] for d in range(spec.directions)]
        made = [once(expression(kind, value)) for kind in dict.fromkeys(kinds)]
        return made[0] if len(made) == 1 else T.Select(self.d == 0, *made)

    def _update(self, value: Callable[[Any, Any], list[Any]]) -> None:
        """The block that makes the new state and, of an LSTM, the new cell."""
        self._each("update", lambda b, h: list(zip(self.new, value(b, h), strict=True)))

    def _carry(self) -> None:
        """What is new becomes old, and is shown.

        Beyond its end a sequence shows zeros, and its state stays.
        """
        from tvm.script.ir_builder import tirx as T

        spec, at, states = self.spec, self.at, self.arguments["states"]
        with ExitStack() as stack:
            b, h = self._block(stack, "carried")
            if spec.lengths:
                for frame in (T.If(at < self.arguments["lengths"][b]), T.Then()):
                    stack.enter_context(frame)
            for old, new in zip(self.old, self.new, strict=True):
                T.buffer_store(old, new[b, h], [b, h])
        with ExitStack() as stack:
            b, h = self._block(stack, "shown", spec.size)
            value = self.new[0][b, h]
            if spec.lengths:
                value = T.Select(at < self.arguments["lengths"][b], value, T.float32(0.0))
            T.buffer_store(states, value, [at, self.d, b, h])

    def _each(self, name: str, stores: Callable[[Any, Any], Sequence[tuple[Any, Any]]]) -> None:
        """A block that stores values in buffers of [batch, size]."""
        from tvm.script.ir_builder import tirx as T

        with ExitStack() as stack:
            b, h = self._block(stack, name)
            for buffer, value in stores(b, h):
                T.buffer_store(buffer, value, [b, h])

    def _block(self, stack: ExitStack, name: str, columns: int = 0) -> tuple[Any, Any]:
        """Begin a block over rows and columns (0: all) of the state; returns its axes."""
        from tvm.script.ir_builder import tirx as T

        extents = self.spec.batch, columns or self.spec.wide
        b, h = stack.enter_context(T.grid(*extents))
        stack.enter_context(T.sblock(name))
        return T.axis.spatial(extents[0], b), T.axis.spatial(extents[1], h)


def _buffer(shape: tuple[int, ...], name: str) -> Any:
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    return IRBuilder.name(name, T.sblock_alloc_buffer(shape, "float32"))


def _whole(buffer: Any) -> Any:
    return buffer[tuple(slice(0, int(extent)) for extent in buffer.shape)]
