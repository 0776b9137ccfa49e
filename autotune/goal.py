"""How fast a model is to become: by a time, or by another engine's."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.bench.peers import PEERS, peer_named
from autotune.errors import InputError

if TYPE_CHECKING:
    from autotune.frontends.base import ImportedModel

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}

SECONDS, ROUNDS = 2.0, 5
"""How long another engine is timed, and in how many turns."""


@dataclass(frozen=True)
class Goal:
    """``times`` as fast as ``engine``, or ``seconds`` for one inference where there is none."""

    engine: str = ""
    times: float = 1.0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read "onnxruntime", "openvino:1.1" (times as fast) or "2.5ms". Raises ``InputError``."""
        if found := re.fullmatch(r"([0-9.]+)\s*(s|ms|us|µs)", text):
            seconds = _number(found[1], text) * _UNITS[found[2]]
            return cls(seconds=seconds)
        name, colon, times = text.partition(":")
        if name not in PEERS:
            raise InputError(
                f"{text!r} is no target: give a time such as 2.5ms, or an engine "
                f"({', '.join(PEERS)}), with :1.1 for 1.1 times as fast"
            )
        return cls(engine=name, times=_number(times, text) if colon else 1.0)

    def reached_at(self, model: Path, imported: ImportedModel, threads: int) -> float:
        """Seconds of one inference at which it is reached, on this machine.

        Times the engine, where there is one, on the ONNX file ``model``. Raises a ``UserError``
        where it is not installed or does not take the model.
        """
        if not self.engine:
            return self.seconds
        from autotune.bench.interleaved import interleave
        from autotune.frontends.sampling import random_inputs

        inputs = random_inputs(imported.inputs, 0)
        engine = peer_named(self.engine).engine(model, inputs, threads)
        times = interleave({self.engine: engine.run}, seconds=SECONDS, rounds=ROUNDS)
        turns = [statistics.median(turn) for turn in times[self.engine]]
        return statistics.median(turns) / self.times


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{whole!r} is no target: {text or 'nothing'} is not a number above 0")
    return value
