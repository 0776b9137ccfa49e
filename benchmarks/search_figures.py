"""The figures of ``benchmarks.search``: how far each search is after so many trials and seconds.

A search is a sampler with a seed. Its ``looks`` are what it measured, in order; candidates lead by
their first look. What counts is the truth: the seconds of whoever led, measured again, all of them
together. A search delivers the best, by that, of its ``FINALISTS`` leaders, as the finals of
``autotune tune`` would. Where there are several tasks, it is the sum over them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from autotune.search.settings import SearchSettings

Key = tuple[str, str]
"""Workload and candidate."""

CHECKPOINTS = (16, 32, 64, 128, 256, 512)
TIMES = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds of a search."""

FINALISTS = SearchSettings.finalists
"""Leaders of a search that are measured again in its finals."""

LEVELS = (0.95, 0.99)
"""Shares of the best known speed."""

TIE = 0.03
"""Times that differ by less are as good as equal: which comes first says nothing."""


@dataclass(frozen=True)
class Look:
    """A candidate that a search measured: ``seconds`` of one call (None: it failed), and ``clock``,
    the seconds since the search began."""

    key: Key
    seconds: float | None
    clock: float


@dataclass(frozen=True)
class Curve:
    """After each look the share of the best known speed, and the seconds since the beginning."""

    shares: Sequence[float]
    clocks: Sequence[float]

    def after(self, seconds: float) -> float:
        """The share that was reached within ``seconds``."""
        done = sum(clock <= seconds for clock in self.clocks)
        return self.shares[done - 1] if done else 0.0

    def looks_to(self, level: float) -> int | None:
        """Looks until ``level`` was reached for good; None if it was not."""
        last = max((i for i, share in enumerate(self.shares) if share < level), default=-1)
        return None if last + 1 >= len(self.shares) else last + 2

    def seconds_to(self, level: float) -> float | None:
        """The same in seconds."""
        looks = self.looks_to(level)
        return None if looks is None else self.clocks[looks - 1]


def leaders(looks: Sequence[Look]) -> list[dict[str, tuple[Key, ...]]]:
    """After each look the candidates of each workload that looked fastest so far, best first."""
    best: dict[str, list[tuple[float, Key]]] = {}
    found = []
    for look in looks:
        if look.seconds is not None:
            ranked = sorted([*best.get(look.key[0], ()), (look.seconds, look.key)])
            best[look.key[0]] = ranked[:FINALISTS]
        found.append({owner: tuple(key for _, key in lead) for owner, lead in best.items()})
    return found


def curve(looks: Sequence[Look], calls: Mapping[str, int], truth: Mapping[Key, float]) -> Curve:
    """How far a search was after each look; nowhere before every task has a right candidate."""
    best = _best(calls, truth)
    shares = []
    for leading in leaders(looks):
        whole = sum(
            n * min((truth[key] for key in leading.get(w, ())), default=math.inf)
            for w, n in calls.items()
        )
        shares.append(best / whole)
    return Curve(tuple(shares), tuple(look.clock for look in looks))


def _best(calls: Mapping[str, int], truth: Mapping[Key, float]) -> float:
    """Seconds of all tasks, each by the best that is known of it."""
    return sum(n * min(t for key, t in truth.items() if key[0] == w) for w, n in calls.items())


def compared(
    calls: Mapping[str, int],
    looks: Mapping[str, Sequence[Sequence[Look]]],
    again: Callable[[Sequence[Key]], Mapping[Key, float]],
) -> dict[str, Any]:
    """The figures of the searches of each sampler, once ``again`` has measured whoever led."""
    led = {
        key
        for several in looks.values()
        for one in several
        for leading in leaders(one)
        for keys in leading.values()
        for key in keys
    }
    truth = dict(again(sorted(led)))
    for key in led - set(truth):  # it failed this time: as slow as the slowest
        truth[key] = max(seconds for other, seconds in truth.items() if other[0] == key[0])
    samplers = {
        name: of_sampler([curve(one, calls, truth) for one in several])
        for name, several in looks.items()
    }
    return {
        "best_seconds": _best(calls, truth),
        "truth": {":".join(key): seconds for key, seconds in truth.items()},
        "samplers": samplers,
    }


def of_sampler(curves: Sequence[Curve]) -> dict[str, Any]:
    """Of the searches of one sampler: medians over the seeds, and ranges at the checkpoints.

    One that did not reach a level needs one look more than it had, and endless seconds (None).
    """
    count = min(len(curve.shares) for curve in curves)
    longest = max(curve.clocks[-1] for curve in curves)
    found: dict[str, Any] = {
        "after": {
            str(n): _spread([curve.shares[n - 1] for curve in curves])
            for n in CHECKPOINTS
            if n <= count
        },
        "after_seconds": {
            str(t): _spread([curve.after(t) for curve in curves]) for t in TIMES if t < longest
        },
        "final": statistics.median(curve.shares[-1] for curve in curves),
        "seconds": statistics.median(curve.clocks[-1] for curve in curves),
    }
    for level in LEVELS:
        looks = [curve.looks_to(level) for curve in curves]
        found[f"trials_to_{level}"] = statistics.median(
            len(curve.shares) + 1 if n is None else n
            for n, curve in zip(looks, curves, strict=True)
        )
        found[f"seconds_to_{level}"] = seconds_to(curves, level)
        found[f"reached_{level}"] = sum(n is not None for n in looks)
    found["curve"] = [statistics.median(c.shares[i] for c in curves) for i in range(count)]
    found["clock"] = [statistics.median(c.clocks[i] for c in curves) for i in range(count)]
    return found


def seconds_to(curves: Sequence[Curve], level: float) -> float | None:
    """The median over ``curves``; None where less than half of them got there."""
    taken = [curve.seconds_to(level) for curve in curves]
    middle = statistics.median(math.inf if s is None else s for s in taken)
    return middle if math.isfinite(middle) else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ranking(scores: Sequence[float], seconds: Sequence[float], top: int = 8) -> dict[str, float]:
    """How well ``scores`` (higher is better) order ``seconds``.

    ``pairs`` is the share of pairs in the right order, ties left out; ``recall`` the share of the
    ``top`` fastest among as many with the best scores; ``top1`` and ``topk`` the best time over
    that of the best score, and over the best among the ``top`` best scores.
    """
    right = told = 0
    for i, j in combinations(range(len(seconds)), 2):
        if abs(math.log(seconds[i] / seconds[j])) > TIE:
            told += 1
            right += (scores[i] > scores[j]) == (seconds[i] < seconds[j])
    by_score = sorted(range(len(scores)), key=lambda i: -scores[i])
    by_time = sorted(range(len(seconds)), key=lambda i: seconds[i])
    best = seconds[by_time[0]]
    return {
        "pairs": right / told if told else math.nan,
        "recall": len({*by_score[:top]} & {*by_time[:top]}) / top,
        "top1": best / seconds[by_score[0]],
        "topk": best / min(seconds[i] for i in by_score[:top]),
    }
