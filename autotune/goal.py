"""How fast a model is to become: by a time, or by another engine's."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.bench.peers import PEERS, peer_named
from autotune.durations import milliseconds
from autotune.errors import InputError
from autotune.steps import Status, tell

if TYPE_CHECKING:
    from autotune.artifact.build import Compiled
    from autotune.artifact.manifest import ChosenSchedule
    from autotune.bench.peers import Arrays
    from autotune.frontends.base import ImportedModel
    from autotune.graph.model import FusedModel
    from tuning_db.database import TuningDatabase

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}

SECONDS, ROUNDS = 2.0, 5
"""How long engines are timed, and in how many turns."""


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

    def race(self, model: Any, imported: ImportedModel, threads: int, seed: int = 0) -> Race:
        """The goal on this machine, with the engine, if any, ready to run the file ``model``.

        Raises a ``UserError`` where the engine is not installed or does not take the model.
        """
        from autotune.bench.interleaved import interleave
        from autotune.frontends.sampling import sample_inputs

        inputs = sample_inputs(imported, seed)
        if not self.engine:
            return Race(self, inputs, self.seconds)
        run = peer_named(self.engine).engine(Path(model), inputs, threads).run
        times = interleave({self.engine: run}, seconds=SECONDS, rounds=ROUNDS)
        return Race(self, inputs, _median(times[self.engine]) / self.times, run)


@dataclass(frozen=True)
class Race:
    """``seconds`` of one inference at which ``goal`` is reached, as timed before the search."""

    goal: Goal
    inputs: Arrays = field(repr=False)
    seconds: float
    other: Callable[[], Arrays] | None = field(default=None, repr=False)

    def taken(self, model: Callable[[Arrays], object]) -> tuple[float, float]:
        """How much of the time that it may take ``model`` takes, and the seconds it takes.

        The first is 1 or less where the goal is reached. Another engine runs beside it, in turns:
        what the machine does now counts for both.
        """
        from autotune.bench.interleaved import SETTLE, interleave, settle
        from autotune.bench.statistics import ratio

        def ours() -> object:
            return model(self.inputs)

        runs = {"ours": ours} if self.other is None else {"ours": ours, "other": self.other}
        times = interleave(runs, seconds=SECONDS, rounds=ROUNDS)
        settle(SETTLE)  # what is measured next in other processes is not to meet our threads
        seconds = _median(times["ours"])
        if self.other is None:
            return seconds / self.seconds, seconds
        return self.goal.times / ratio(times["ours"], times["other"]).value, seconds


@dataclass
class WholeModel:
    """The whole model in a ``race``, whenever the tasks together are fast enough.

    ``compiled`` is what was built last, with the schedules that were the best then; ``seconds`` is
    what one inference of it took.
    """

    race: Race
    fused: FusedModel
    database: TuningDatabase
    status: Status | None = None
    compiled: Compiled | None = field(default=None, repr=False)
    seconds: float | None = None

    def made(self, fused: FusedModel, schedules: Mapping[str, ChosenSchedule]) -> Compiled | None:
        """What was built last, if it was ``fused`` with ``schedules``."""
        last = self.compiled
        same = last is not None and last.fused is fused and last.schedules == schedules
        return last if same else None

    def __call__(self) -> float:
        """How many times as long it takes as it may, with the best schedules so far."""
        from autotune.artifact.build import compiled
        from autotune.artifact.schedules import chosen_from

        tell(self.status, "the tasks together are fast enough: timing the whole model")
        self.compiled = compiled(self.fused, chosen_from(self.database, self.fused))
        taken, self.seconds = self.race.taken(self.compiled.runnable())
        told = f"it takes {milliseconds(self.seconds)} ms, {taken:.3f} times as long as it may"
        tell(self.status, f"{told}: searching on" if taken > 1.0 else told)
        return taken


def _median(turns: list[list[float]]) -> float:
    return statistics.median(statistics.median(turn) for turn in turns)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{whole!r} is no target: {text or 'nothing'} is not a number above 0")
    return value
