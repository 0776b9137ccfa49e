"""RNN, GRU and LSTM, in every direction and with every option, as products and elementwise steps.

The product of the whole sequence with the input weights does not depend on the state: it is one
product, before the steps. A step multiplies the state alone. Where one function can loop over the
steps (``recurrent_loop``) it does. Others are unrolled: they are equal, so they become one kernel
that is called for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autotune.frontends.activations import NAMES, Activation
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown
from autotune.frontends.onnx_rewrites.recurrent_loop import looped
from autotune.frontends.recurrence import GATES

DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

LONGEST = 512
"""Steps that are unrolled at most."""

ALPHA = {"Affine": 1.0, "Elu": 1.0, "HardSigmoid": 0.2, "LeakyRelu": 0.01, "ThresholdedRelu": 1.0}
BETA = {"Affine": 0.0, "HardSigmoid": 0.5}

Function = Callable[[str], str]


def recurrent(site: Site) -> Sequence[str]:
    """Every output of the node: the states of all steps, and the last ones."""
    x = site.input(0)
    if site.attribute("layout", 0):
        x = site.transpose(x, (1, 0, 2))
        steps_of = site.shape(site.input(0))
        length, batch, width = steps_of[1], steps_of[0], steps_of[2]
    else:
        length, batch, width = site.shape(x)
    lengths = None
    if site.input(4):
        # The states beyond the end of a sequence are zero, the last one is that of its end.
        known = site.facts.constant(site.input(4))
        if known is None or (known < length).any():
            lengths = site.input(4)
    outputs = looped(site, x, (length, batch, width), lengths, _activations(site))
    if outputs is None:
        outputs = _unrolled(site, x, (length, batch, width), lengths)
    if lengths is not None and (site.input(5) or site.input(6)):
        outputs = [outputs[0], *_of_some_length(site, outputs[1:], batch, lengths)]
    if site.attribute("layout", 0):
        outputs = [
            site.transpose(outputs[0], (2, 0, 1, 3)),
            *(site.transpose(name, (1, 0, 2)) for name in outputs[1:]),
        ]
    return outputs


def _of_some_length(site: Site, last: Sequence[str], batch: int, lengths: str) -> Sequence[str]:
    """The ``last`` states, zero where a sequence has no step at all.

    The specification says nothing of these. The first state would be as good an answer, but ONNX
    Runtime's is zero.
    """
    import numpy as np

    known = site.facts.constant(lengths)
    if known is not None and (known > 0).all():
        return last
    dtype = site.dtype(site.input(0))
    limits = site.reshape(lengths, (1, batch, 1))
    some = site.emit("Greater", limits, np.asarray(0, site.dtype(lengths)))
    return [site.emit("Where", some, state, np.asarray(0, dtype)) for state in last]


def _unrolled(site: Site, x: str, extents: tuple[int, int, int], lengths: str | None) -> list[str]:
    """The outputs of the node, with its steps one after the other; ``extents`` are those of x."""
    operator, (length, batch, width) = site.operator, extents
    if length > LONGEST:
        raise Unknown(
            f"a {operator} of {length} steps that are no loop over floats of 32 bits: "
            f"at most {LONGEST} can be compiled"
        )
    weights, recurrence = (site.input(i) for i in (1, 2))
    directions, _, size = site.shape(recurrence)
    dtype = site.dtype(site.input(0))
    direction = site.attribute("direction", "forward")
    rows, finals, cells = [], [], []
    for index in range(directions):
        part = _Direction(site, index, size, batch, dtype)
        part.weights = site.reshape(site.slice(weights, index, index + 1, 0), (-1, width))
        part.recurrence = site.reshape(site.slice(recurrence, index, index + 1, 0), (-1, size))
        backward = direction == "reverse" or index == 1
        states, last, cell = part.run(x, length, width, lengths, backward)
        rows.append(site.reshape(states, (length, 1, batch, size)))
        finals.append(site.reshape(last, (1, batch, size)))
        cells.append(site.reshape(cell, (1, batch, size)) if cell else "")

    def joined(parts: Sequence[str], axis: int) -> str:
        return parts[0] if len(parts) == 1 else site.emit("Concat", *parts, axis=axis)

    outputs = [joined(rows, 1), joined(finals, 0)]
    if operator == "LSTM":
        outputs.append(joined(cells, 0))
    return outputs


def _activations(site: Site) -> list[Activation]:
    """The activations of all directions; each takes its alpha and beta from the lists in turn."""
    alphas = list(site.attribute("activation_alpha") or [])
    betas = list(site.attribute("activation_beta") or [])
    made = []
    for name in site.attribute("activations") or DEFAULTS[site.operator] * 2:
        name = {item.lower(): item for item in NAMES}.get(name.lower(), name)
        takes_alpha = name in {*ALPHA, "ScaledTanh"}
        takes_beta = name in {*BETA, "ScaledTanh", "Affine"}
        alpha = alphas.pop(0) if takes_alpha and alphas else ALPHA.get(name, 1.0)
        beta = betas.pop(0) if takes_beta and betas else BETA.get(name, 1.0)
        made.append((name, float(alpha), float(beta)))
    return made


class _Direction:
    """One direction of the node: its weights, its start and its steps."""

    weights: str
    recurrence: str

    def __init__(self, site: Site, index: int, size: int, batch: int, dtype: Any) -> None:
        self.site, self.index, self.size, self.batch, self.dtype = site, index, size, batch, dtype
        self.operator = site.operator
        self.gates = GATES[self.operator]
        count = len(DEFAULTS[self.operator])
        chosen = _activations(site)[index * count : (index + 1) * count]
        self.functions = [self._function(*activation) for activation in chosen]
        self.clip = site.attribute("clip", 0.0)

    def _function(self, name: str, alpha: float, beta: float) -> Function:
        import numpy as np

        site = self.site

        def number(value: float) -> Any:
            return np.asarray(value, self.dtype)

        def plain(value: str) -> str:
            attributes: dict[str, Any] = {"alpha": alpha} if name in ALPHA else {}
            if name == "HardSigmoid":
                attributes["beta"] = beta
            return site.emit(name, value, **attributes)

        def affine(value: str) -> str:
            return site.emit("Add", site.emit("Mul", value, number(alpha)), number(beta))

        def scaled(value: str) -> str:
            inner = site.emit("Tanh", site.emit("Mul", value, number(beta)))
            return site.emit("Mul", inner, number(alpha))

        return {"Affine": affine, "ScaledTanh": scaled}.get(name, plain)

    def run(
        self, x: str, length: int, width: int, lengths: str | None, backward: bool
    ) -> tuple[str, str, str]:
        """The states of all steps [length, batch, size], the last one, and the last cell."""
        site, rows = self.site, length * self.batch
        bias = self._bias()
        projected = site.emit(
            "MatMul", site.reshape(x, (rows, width)), site.transpose(self.weights, (1, 0))
        )
        if bias[0]:
            projected = site.emit("Add", projected, bias[0])
        shape = (length, self.batch, self.gates * self.size)
        parts = self._steps(site.reshape(projected, shape), length)
        self.hidden_bias = bias[1]
        self.transposed = site.transpose(self.recurrence, (1, 0))
        state, cell = self._start(5), self._start(6) if self.operator == "LSTM" else ""
        states = [""] * length
        for step in reversed(range(length)) if backward else range(length):
            new, new_cell = self._step(parts[step], state, cell)
            shown = new
            if lengths is not None:
                inside = self._inside(step, lengths)
                zero = self._zeros()
                shown = site.emit("Where", inside, new, zero)
                new = site.emit("Where", inside, new, state)
                new_cell = site.emit("Where", inside, new_cell, cell) if cell else ""
            states[step], state, cell = shown, new, new_cell
        return self._joined(states), state, cell

    def _steps(self, projected: str, length: int) -> list[str]:
        """The projection of each step, [batch, gates * size]."""
        site, wide = self.site, self.gates * self.size
        if length == 1:
            return [site.reshape(projected, (self.batch, wide))]
        # One kernel takes them apart: a slice of its own for each step would be part of the step,
        # and so make as many different kernels as there are steps.
        parts = site.emit("Split", projected, *site.equal_parts(length), outputs=length, axis=0)
        return [
            site.reshape(name, (self.batch, wide))
            for name in (parts, *(f"{parts}/{i}" for i in range(1, length)))
        ]

    def _joined(self, states: Sequence[str]) -> str:
        parts = [self.site.reshape(state, (1, self.batch, self.size)) for state in states]
        while len(parts) > 1:
            groups = [parts[i : i + 16] for i in range(0, len(parts), 16)]
            parts = [g[0] if len(g) == 1 else self.site.emit("Concat", *g, axis=0) for g in groups]
        return parts[0]

    def _bias(self) -> tuple[str, str]:
        """What is added to the projection, and to the product of the state (GRU alone)."""
        site = self.site
        if not site.input(3):
            return "", ""
        wide = self.gates * self.size
        row = site.reshape(site.slice(site.input(3), self.index, self.index + 1, 0), (2 * wide,))
        of_input, of_state = site.slice(row, 0, wide, 0), site.slice(row, wide, 2 * wide, 0)
        if self.operator == "GRU":
            return of_input, of_state
        return site.emit("Add", of_input, of_state), ""

    def _start(self, position: int) -> str:
        site, name = self.site, self.site.input(position)
        if not name:
            return self._zeros()
        axis = 1 if site.attribute("layout", 0) else 0
        part = site.slice(name, self.index, self.index + 1, axis)
        return site.reshape(part, (self.batch, self.size))

    def _zeros(self) -> str:
        import numpy as np

        return self.site.name(np.zeros((self.batch, self.size), self.dtype))

    def _inside(self, step: int, lengths: str) -> str:
        """Whether ``step`` belongs to each sequence, [batch, 1]."""
        import numpy as np

        limits = self.site.reshape(lengths, (self.batch, 1))
        return self.site.emit("Greater", limits, np.asarray(step, self.site.dtype(lengths)))

    def _gate(self, value: str, index: int) -> str:
        return self.site.slice(value, index * self.size, (index + 1) * self.size, 1)

    def _clipped(self, value: str) -> str:
        import numpy as np

        if not self.clip:
            return value
        bounds = [np.asarray(bound, self.dtype) for bound in (-self.clip, self.clip)]
        return self.site.emit("Clip", value, *bounds)

    def _step(self, x: str, state: str, cell: str) -> tuple[str, str]:
        site, f = self.site, self.functions
        if self.operator == "GRU":
            return self._gated(x, state), ""
        total = site.emit("Add", x, site.emit("MatMul", state, self.transposed))
        if self.operator == "RNN":
            return f[0](self._clipped(total)), ""
        gates = [self._gate(total, i) for i in range(4)]  # input, output, forget, cell
        gates[0] = self._peeped(gates[0], cell, 0)
        gates[2] = self._peeped(gates[2], cell, 2)
        i = f[0](self._clipped(gates[0]))
        if site.attribute("input_forget", 0):
            import numpy as np

            forget = site.emit("Sub", np.asarray(1, self.dtype), i)
        else:
            forget = f[0](self._clipped(gates[2]))
        c = f[1](self._clipped(gates[3]))
        cell = site.emit("Add", site.emit("Mul", forget, cell), site.emit("Mul", i, c))
        o = f[0](self._clipped(self._peeped(gates[1], cell, 1)))
        return site.emit("Mul", o, f[2](cell)), cell

    def _peeped(self, gate: str, cell: str, index: int) -> str:
        """``gate`` with what it sees of the cell: weights in the order input, output, forget."""
        site = self.site
        if not site.input(7):
            return gate
        row = site.reshape(site.slice(site.input(7), self.index, self.index + 1, 0), (-1,))
        weights = site.slice(row, index * self.size, (index + 1) * self.size, 0)
        return site.emit("Add", gate, site.emit("Mul", cell, weights))

    def _gated(self, x: str, state: str) -> str:
        """A step of a GRU: update, reset and hidden gate."""
        import numpy as np

        site, f, size = self.site, self.functions, self.size
        product = site.emit("MatMul", state, self.transposed)
        if self.hidden_bias:
            product = site.emit("Add", product, self.hidden_bias)

        def gate(index: int) -> str:
            total = site.emit("Add", self._gate(x, index), self._gate(product, index))
            return f[0](self._clipped(total))

        update, reset = gate(0), gate(1)
        if site.attribute("linear_before_reset", 0):
            hidden = site.emit("Mul", reset, self._gate(product, 2))
        else:
            part = site.slice(self.transposed, 2 * size, 3 * size, 1)
            hidden = site.emit("MatMul", site.emit("Mul", reset, state), part)
            if self.hidden_bias:
                hidden = site.emit(
                    "Add", hidden, site.slice(self.hidden_bias, 2 * size, 3 * size, 0)
                )
        new = f[1](self._clipped(site.emit("Add", self._gate(x, 2), hidden)))
        keep = site.emit("Mul", update, state)
        rest = site.emit("Sub", np.asarray(1, self.dtype), update)
        return site.emit("Add", site.emit("Mul", rest, new), keep)


REWRITE = Rewrite(("RNN", "GRU", "LSTM"), recurrent)
