"""What a recurrence computes, in plain values: the sizes and options of an RNN, GRU or LSTM."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from autotune.frontends.activations import Activation

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Recurrence:
    """What a recurrence computes.

    ``reverse`` is that of a single direction; of two, the second goes backward. ``activations`` are
    those of each direction in turn, as many as the operator has: one, two (GRU) or three (LSTM).
    ``after`` says that the reset gate of a GRU takes the product of the state, not the state.
    ``coupled`` that the forget gate of an LSTM is what the input gate leaves. ``clip`` bounds what
    activations get, 0.0 for no bound.
    """

    operator: str
    steps: int
    batch: int
    size: int
    directions: int
    activations: tuple[Activation, ...]
    reverse: bool = False
    clip: float = 0.0
    after: bool = False
    coupled: bool = False
    peepholes: bool = False
    lengths: bool = False

    def text(self) -> str:
        """As JSON; ``from_text`` reads it."""
        return json.dumps(asdict(self))

    @property
    def gates(self) -> int:
        """How many products of the state there are."""
        return GATES[self.operator]

    @property
    def wide(self) -> int:
        """``size`` filled up to whole vectors, where those add little.

        What the columns beyond it hold is nobody's: no product reads them, and none is shown.
        """
        for lanes in (16, 8, 4):
            filled = -(-self.size // lanes) * lanes
            if (filled - self.size) * 4 <= self.size:
                return filled
        return self.size

    @property
    def products(self) -> tuple[int, ...]:
        """Gates of each product of a step: a second product waits for the result of the first."""
        waits = self.operator == "GRU" and not self.after
        return (2, 1) if waits else (self.gates,)

    @property
    def states(self) -> int:
        """Tensors that go from step to step: the state, and the cell of an LSTM."""
        return 2 if self.operator == "LSTM" else 1

    def inputs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and dtype of each argument that is read, in order.

        ``projection`` is the product of all inputs with the input weights and their bias,
        ``weights`` are those of the state, ``bias`` is added to the product of a GRU's state. All
        of these have ``wide`` columns for each gate.
        """
        d, g, b, h, w = self.directions, self.gates, self.batch, self.size, self.wide
        found: list[tuple[str, tuple[int, ...], str]] = []
        found.append(("projection", (self.steps * b, d * g * w), "float32"))
        found += [(f"weights{i}", (d, n, h, w), "float32") for i, n in enumerate(self.products)]
        found += [(f"first{i}", (d, b, h), "float32") for i in range(self.states)]
        if self.operator == "GRU":
            found.append(("bias", (d, g * w), "float32"))
        if self.peepholes:
            found.append(("peepholes", (d, 3 * w), "float32"))
        if self.lengths:
            found.append(("lengths", (b,), "int32"))
        return found

    def outputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each argument that is written: all states, and the last ones."""
        d, b, h = self.directions, self.batch, self.size
        last = [(f"last{i}", (d, b, h)) for i in range(self.states)]
        return [("states", (self.steps, d, b, h)), *last]


def from_text(text: str) -> Recurrence:
    """What ``Recurrence.text`` wrote."""
    fields = json.loads(text)
    activations = tuple((name, alpha, beta) for name, alpha, beta in fields.pop("activations"))
    return Recurrence(**fields, activations=activations)
