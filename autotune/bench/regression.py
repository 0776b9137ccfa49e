"""Is what was measured now worse than the baseline? Decided on figures alone, nothing is run here.

Times are compared by process. In each of several fresh processes both artifacts were timed in
turns, which gives one ratio: where in memory a process happens to put things moves its ratio by
more than the noise within it, so more rounds in one process would prove nothing. Were both the same
artifact, each ratio would be above 1 as often as below, whatever the noise; that is what Wilcoxon's
signed-rank test asks, and it is exact for so few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

PROCESSES = 10
"""Fresh processes in which both are timed."""

SIGNIFICANCE = 0.005
"""How likely at most noise alone is to look so much slower, for a time to count as slower."""

MEMORY_NOISE = 1 << 20
"""Bytes: what an allocator keeps differs by this much from process to process."""


@dataclass(frozen=True)
class Thresholds:
    """How much worse than the baseline may be: shares, 0.03 is 3 %.

    ``error`` is the largest difference of an output, over the largest magnitude in that output.
    """

    latency: float = 0.03
    p99: float = 0.25
    memory: float = 0.05
    size: float = 0.05
    error: float = 1e-4


@dataclass(frozen=True)
class Finding:
    """One figure beside the baseline's, in seconds, in bytes, or (``error``) a share.

    ``change`` is how much worse it is, a share; ``limit`` how much it may be. ``probability`` is
    how likely noise alone is to look so; None where nothing is left to chance.
    """

    figure: str
    baseline: float
    now: float
    change: float
    limit: float
    probability: float | None
    worse: bool


@dataclass(frozen=True)
class Times:
    """What one process saw of both: p50 and p99 in seconds, and the ratio of their times.

    ``ratio`` (now over baseline) is the median of the ratios of rounds in which both took turns.
    """

    baseline: tuple[float, float]
    now: tuple[float, float]
    ratio: float


def times_of(baseline: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> Times:
    """Summarise one process: seconds of single calls, by round, of both."""
    pairs = zip(baseline, now, strict=True)
    ratio = median(median(ours) / median(theirs) for theirs, ours in pairs)
    return Times(_quantiles(baseline), _quantiles(now), ratio)


def findings(
    times: Sequence[Times],
    memory: tuple[Sequence[float], Sequence[float]],
    size: tuple[int, int],
    error: float,
    limits: Thresholds,
) -> tuple[Finding, ...]:
    """Judge every figure; ``memory`` and ``size`` are the baseline's, then what is now."""
    return (
        slower("p50", times, 0, [t.ratio for t in times], limits.latency),
        slower("p99", times, 1, [t.now[1] / t.baseline[1] for t in times], limits.p99),
        hungrier(*memory, limits.memory),
        _grown("size", size[0], size[1], limits.size),
        Finding("error", 0.0, error, error, limits.error, None, not error <= limits.error),
    )


def slower(
    figure: str, times: Sequence[Times], which: int, ratios: Sequence[float], limit: float
) -> Finding:
    """Judge a time by its ratios: worse if their median is above the limit, beyond the noise."""
    change = float(np.median(ratios)) - 1.0
    chance = _chance(np.log(ratios))
    return Finding(
        figure,
        float(np.median([one.baseline[which] for one in times])),
        float(np.median([one.now[which] for one in times])),
        change,
        limit,
        chance,
        change > limit and chance <= SIGNIFICANCE,
    )


def hungrier(baseline: Sequence[float], now: Sequence[float], limit: float) -> Finding:
    """Judge the peak memory of several processes of each, in bytes.

    Worse only if every process of now took more than any of the baseline, beyond the limit and
    beyond what an allocator keeps.
    """
    most, least = max(baseline), min(now)
    found = _grown("memory", float(np.median(baseline)), float(np.median(now)), limit)
    return replace(found, worse=least > max(most * (1 + limit), most + MEMORY_NOISE))


def _grown(figure: str, baseline: float, now: float, limit: float) -> Finding:
    change = now / baseline - 1.0 if baseline else (math.inf if now else 0.0)
    return Finding(figure, baseline, now, change, limit, None, now > baseline * (1 + limit))


def _chance(logs: np.ndarray[Any, Any]) -> float:
    """How likely ratios of equals are to be as high as these, whose logarithms are given."""
    from scipy import stats

    if not np.any(logs):
        return 1.0
    return float(stats.wilcoxon(logs, alternative="greater").pvalue)


def _quantiles(rounds: Sequence[Sequence[float]]) -> tuple[float, float]:
    p50, p99 = np.quantile([seconds for turn in rounds for seconds in turn], [0.5, 0.99])
    return float(p50), float(p99)
