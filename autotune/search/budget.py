"""Which task the next trials go to, and how many there are.

As in Ansor's task scheduler, trials go where they promise most for the whole model: how often the
model calls a task, times what a further trial may take off its time. That is judged by what the
last trials took off, and by how far the task is from what the hardware did on others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW = 8
"""Trials over which the recent gain is averaged."""

TRUST_IN_TREND = 0.5
"""Weight of the recent gain against the headroom that is left."""

LEAST_HEADROOM = 0.2
"""Share of its time that even the task closest to the hardware may still lose: the best rate so far
is that of a default at first, which is no roofline."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend: measured candidates, and wall-clock seconds.

    None is no bound. ``trials`` is a total that includes those of earlier runs; ``seconds`` are of
    this run alone.
    """

    trials: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 0:
            raise ValueError(f"trials must not be negative, not {self.trials}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds must not be negative, not {self.seconds}")

    def left(self, trials: int) -> float:
        """How many trials are left after ``trials``, infinite without a bound; never negative."""
        return math.inf if self.trials is None else max(0, self.trials - trials)


@dataclass(frozen=True)
class Standing:
    """How far the search of one task has come.

    ``history`` is the best time after each measured candidate, in seconds of one call and infinite
    until one succeeded. ``finished`` is set for a task that is converged, exhausted or set aside.
    """

    calls: int
    flops: float
    bytes: int
    history: tuple[float, ...] = field(default=(), repr=False)
    finished: bool = False

    @property
    def best(self) -> float:
        """Best seconds of one call so far; infinite if none."""
        return self.history[-1] if self.history else math.inf


def expected_gain(standing: Standing, floor: float) -> float:
    """Seconds of one inference that the next trial of a task may save.

    ``floor`` is the time of one call below which nothing is expected. Infinite for a task that has
    not been measured, or that only failed so far: nothing is known of it.
    """
    trials, best = len(standing.history), standing.best
    if not math.isfinite(best):
        return math.inf
    window = min(WINDOW, trials - 1)
    before = standing.history[-1 - window]
    trend = (before - best) / window if window and math.isfinite(before) else 0.0
    headroom = max(best - floor, LEAST_HEADROOM * best) / (trials + 1)
    return standing.calls * (TRUST_IN_TREND * trend + (1 - TRUST_IN_TREND) * headroom)


def floors(standings: Sequence[Standing]) -> list[float]:
    """For each task the seconds of one call at the best rates that any task has reached.

    A roofline out of what was measured here: the highest FLOP/s and bytes/s so far.
    """
    timed = [s for s in standings if math.isfinite(s.best) and s.best > 0]
    compute = max((s.flops / s.best for s in timed), default=0.0)
    traffic = max((s.bytes / s.best for s in timed), default=0.0)
    return [
        max(
            s.flops / compute if compute > 0 else 0.0,
            s.bytes / traffic if traffic > 0 else 0.0,
        )
        for s in standings
    ]


def next_task(standings: Sequence[Standing]) -> int | None:
    """The index of the task that the next trials should go to; None if all are finished.

    A task that was never measured comes before all others, and among several of them the one with
    most work in a model: with few trials the defaults of the heavy tasks are known first.
    """
    open_ = [i for i, standing in enumerate(standings) if not standing.finished]
    if not open_:
        return None
    new = [i for i in open_ if not standings[i].history]
    if new:
        return max(new, key=lambda i: (_work(standings[i]), -i))
    bounds = floors(standings)
    gains = {i: expected_gain(standings[i], bounds[i]) for i in open_}
    # Tasks without any success share what is unknown: the least tried one first.
    return max(open_, key=lambda i: (gains[i], -len(standings[i].history), -i))


def _work(standing: Standing) -> float:
    # A byte moved costs about as much as ten operations on the machines this is made for.
    return standing.calls * (standing.flops + 10.0 * standing.bytes)
