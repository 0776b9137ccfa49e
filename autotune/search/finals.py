"""Second looks: the leaders of a task are measured again, in turn, together with its default.

The fastest of many noisy measurements is in part the luckiest. What is compared here was measured
side by side, and a winner must beat the default by more than the noise of that comparison.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured
from search_spaces.task import Candidate

LEAST_GAIN = 0.01
"""Differences below this share are a tie, however steady the measurements were."""


@dataclass(frozen=True)
class Verdict:
    """Who won: ``seconds`` are medians over the rounds, by candidate key; ``noise`` is a share."""

    winner: Candidate | None
    seconds: Mapping[str, float] = field(repr=False)
    noise: float


def judge(default: Candidate | None, looks: Mapping[str, Sequence[Measurement]]) -> Verdict:
    """Decide by all second looks, by candidate key.

    A candidate that failed a look is out. Among those within the noise of the fastest the one with
    the smaller key wins, so that equal looks always give an equal winner; but the default wins
    wherever nothing beats it beyond the noise.
    """
    times: dict[str, list[float]] = {}
    named: dict[str, Candidate] = {}
    for key, seen in looks.items():
        seconds = [look.outcome.seconds for look in seen if isinstance(look.outcome, Measured)]
        if seconds and len(seconds) == len(seen):
            times[key] = seconds
            named[key] = seen[0].candidate
    if not times:
        return Verdict(None, {}, 0.0)
    medians = {key: statistics.median(seconds) for key, seconds in times.items()}
    # The noise of those that are compared: an unsteady third one must not hide a clear winner.
    first = min(medians, key=lambda key: (medians[key], key))
    compared = {first, default.key} if default is not None else {first}
    noise = max(LEAST_GAIN, *(2.0 * _spread(times[key]) for key in compared if key in times))
    fastest = medians[first]
    base = medians.get(default.key) if default is not None else None
    if base is not None and default is not None and fastest >= base * (1.0 - noise):
        return Verdict(default, medians, noise)
    tied = [key for key, seconds in medians.items() if seconds <= fastest * (1.0 + noise)]
    if base is not None:  # one that ties with the fastest must itself beat the default
        tied = [key for key in tied if medians[key] < base * (1.0 - noise)]
    return Verdict(named[min(tied)], medians, noise)


def _spread(seconds: Sequence[float]) -> float:
    """Median distance from the median, as a share of it; 0 for a single look."""
    middle = statistics.median(seconds)
    return statistics.median(abs(s - middle) for s in seconds) / middle if middle else math.inf


def pooled(looks: Sequence[Measurement], seconds: float) -> Measurement:
    """One measurement out of several right looks at a candidate, with all of their samples."""
    seen = [look.outcome for look in looks if isinstance(look.outcome, Measured)]
    stages: dict[str, float] = {}
    for look in looks:
        for name, spent in look.seconds.items():
            stages[name] = stages.get(name, 0.0) + spent
    return Measurement(
        candidate=looks[0].candidate,
        outcome=Measured(
            seconds=seconds,
            samples=tuple(sample for outcome in seen for sample in outcome.samples),
            error=max(outcome.error for outcome in seen),
            tolerance=seen[0].tolerance,
        ),
        trace=looks[0].trace,
        seconds=stages,
    )
