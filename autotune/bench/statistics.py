"""What is said of timings: quantiles, rates, and ratios with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Throughput:
    """Inferences a second of ``callers`` that call at the same time.

    ``value`` is the median over the rounds, ``low`` and ``high`` its 95 % confidence interval.
    ``ratio`` is how many times as many the engine that it is compared with got: above 1, that one
    is faster.
    """

    callers: int
    value: float
    low: float
    high: float
    ratio: Ratio


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
    return Ratio(*_median(each), len(each))


def throughput(rates: Sequence[float], callers: int, ours: Sequence[float]) -> Throughput:
    """Summarise inferences a second by round; ``ours[i]`` was taken next to ``rates[i]``."""
    times = [[[1 / rate] for rate in each] for each in (ours, rates)]
    return Throughput(callers, *_median(np.asarray(rates, float)), ratio(*times))


def _median(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """The median, and its 95 % confidence interval by bootstrap."""
    value = float(np.median(values))
    if len(values) < 3 or float(values.min()) == float(values.max()):
        return value, float(values.min()), float(values.max())
    from scipy import stats

    interval = stats.bootstrap(
        (values,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return value, float(interval.low), float(interval.high)
