"""What is said of timings: quantiles, and a ratio with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Seconds of single inferences: quantiles, the fastest, and how many there were."""

    p50: float
    p95: float
    p99: float
    best: float
    count: int


@dataclass(frozen=True)
class Ratio:
    """How many times the time of one engine another takes: above 1, the first is faster.

    ``value`` is the median over the rounds of the ratios within a round, ``low`` and ``high`` its
    95 % confidence interval (bootstrap), ``rounds`` how many there were.
    """

    value: float
    low: float
    high: float
    rounds: int

    @property
    def clear(self) -> bool:
        """Whether one is faster beyond the noise: the interval leaves 1 out."""
        return self.low > 1.0 or self.high < 1.0


def latency(seconds: Sequence[float]) -> Latency:
    """Summarise at least one timing."""
    values = np.asarray(seconds, float)
    p50, p95, p99 = (float(q) for q in np.quantile(values, [0.5, 0.95, 0.99]))
    return Latency(p50, p95, p99, float(values.min()), len(values))


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Ratio:
    """Compare timings by round: ``ours[i]`` and ``theirs[i]`` were taken next to each other.

    What disturbs the machine for longer than a round disturbs both, and so leaves the ratio alone.
    """
    pairs = zip(ours, theirs, strict=True)
    each = np.array([np.median(other) / np.median(own) for own, other in pairs])
    value = float(np.median(each))
    if len(each) < 3 or float(each.min()) == float(each.max()):
        return Ratio(value, float(each.min()), float(each.max()), len(each))
    from scipy import stats

    interval = stats.bootstrap(
        (each,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return Ratio(value, float(interval.low), float(interval.high), len(each))
