"""How often a kernel is run, and what its time is said to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CACHES = ("cold", "hot")
"""The first is the default: it ranks candidates more like the whole model does."""


@dataclass(frozen=True)
class TimingPlan:
    """How much measuring one candidate is worth.

    Between ``least`` and ``most`` single executions, as many as fit in ``share_seconds``; a kernel
    so slow that ``least`` would take more than ``most_seconds`` gets as many as fit in that, but
    ``first`` at least. After ``first`` executions a candidate slower than ``hopeless`` times the
    best known one is given up, after ``least`` one slower than ``behind`` times. One whose very
    first execution, with all that is done once, takes ``at_first`` times as long is not run again.

    ``cache`` "cold" throws everything but the first argument out of the CPU's caches before each
    execution: in a model an operator finds its weights in memory and its input in a cache. "hot"
    leaves in the caches what the execution before left there.
    """

    first: int = 3
    least: int = 6
    most: int = 100
    share_seconds: float = 0.1
    most_seconds: float = 1.0
    hopeless: float = 1.5
    behind: float = 1.2
    at_first: float = 4.0
    cache: str = CACHES[0]

    def hopeless_at_first(self, best: float | None) -> float:
        """Seconds: a first execution that takes longer is the last one. ``best``: None if unknown.

        Never less than 2 ms, since starting threads and touching memory take as long.
        """
        return math.inf if best is None else max(self.at_first * best, 2e-3)

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise ValueError(f"the cache is {' or '.join(CACHES)}, not {self.cache!r}")


def estimate(samples: Sequence[float]) -> float:
    """The time of a kernel, in seconds: the minimum of its single executions.

    Disturbances only ever add time, so on a shared machine the minimum finds the undisturbed value
    where a mean or a median does not; all samples are stored beside it.
    """
    return min(samples)


ESTIMATOR = "minimum of single executions"
"""What ``estimate`` is called where it is stored."""

FIRST_EXECUTION = "the first execution, which was hopeless"
"""What the time of a candidate is called that was not timed any further."""


def uncertainty(samples: Sequence[float]) -> float | None:
    """How far the estimate may be off, as a share of it; None for a single sample.

    The distance from the fastest to the lower quartile: small where the fastest time was met again
    and again, large where it may have been luck.
    """
    if len(samples) < 2:
        return None
    ordered = sorted(samples)
    return (ordered[math.ceil(len(ordered) / 4)] - ordered[0]) / ordered[0] if ordered[0] else None


def collect(
    execute: Callable[[int], list[float]], best: float | None, plan: TimingPlan
) -> tuple[float, ...]:
    """Single executions of a kernel that has run once before, in seconds, in order.

    ``execute(n)`` runs it n times and returns their seconds. ``best`` is the best time known for
    this task, from which a hopeless candidate is told after few executions; None: nothing known.
    """
    samples = execute(plan.first)
    if best is not None and min(samples) > plan.hopeless * best:
        return tuple(samples)
    fastest = max(min(samples), 1e-9)
    fitting = int(plan.most_seconds / fastest)
    least = min(plan.least, fitting)
    if least > len(samples):
        samples += execute(least - len(samples))
    fastest = max(min(samples), 1e-9)
    if best is not None and fastest > plan.behind * best:
        return tuple(samples)
    wanted = min(plan.most, int(plan.share_seconds / fastest))
    if wanted > len(samples):
        samples += execute(wanted - len(samples))
    return tuple(samples)
