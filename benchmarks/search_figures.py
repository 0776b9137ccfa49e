"""The figures of ``benchmarks.search``: how far each searcher is after so many trials, and a plot.

A searcher is a sampler with a seed. Its ``looks`` are what it measured, in order: candidate keys
with the seconds of the first look (None: failed). What counts is the ``truth``: the seconds of
those candidates measured again, all of them together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

Looks = Sequence[tuple[str, float | None]]

CHECKPOINTS = (16, 32, 64, 128)
LEVELS = (0.95, 0.99)
"""Shares of the best known speed."""

TIE = 0.03
"""Times that differ by less are as good as equal: which comes first says nothing."""

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


def incumbents(looks: Looks) -> list[str | None]:
    """After each look the key of the candidate that looked fastest so far; None before any did."""
    best, seconds, found = None, math.inf, list[str | None]()
    for key, taken in looks:
        if taken is not None and taken < seconds:
            best, seconds = key, taken
        found.append(best)
    return found


def levels(looks: Looks, truth: Mapping[str, float], best: float) -> list[float]:
    """After each look the share of the best known speed that the searcher would deliver."""
    return [0.0 if key is None else best / truth[key] for key in incumbents(looks)]


def trials_to(reached: Sequence[float], level: float) -> int | None:
    """Looks until ``level`` was reached for good; None if it was not."""
    last = max((i for i, share in enumerate(reached) if share < level), default=-1)
    return None if last + 1 >= len(reached) else last + 2


def of_sampler(curves: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of the searchers of one sampler: medians over the seeds, and the range at the checkpoints."""
    count = min(map(len, curves))
    found: dict[str, Any] = {
        "after": {
            str(n): _spread([curve[n - 1] for curve in curves]) for n in CHECKPOINTS if n <= count
        }
    }
    for level in LEVELS:
        needed = [trials_to(curve, level) for curve in curves]
        # One that did not get there needs more than it had.
        found[f"trials_to_{level}"] = statistics.median(
            count + 1 if trials is None else trials for trials in needed
        )
        found[f"reached_{level}"] = sum(trials is not None for trials in needed)
    found["median"] = [statistics.median(c[i] for c in curves) for i in range(count)]
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ranking(scores: Sequence[float], seconds: Sequence[float], top: int = 8) -> dict[str, float]:
    """How well ``scores`` (higher is better) order ``seconds``.

    ``pairs`` is the share of pairs in the right order, ties left out; ``recall`` the share of the
    ``top`` fastest among as many with the best scores; ``top1`` the best time over that of the best
    score.
    """
    right = told = 0
    for i, j in combinations(range(len(seconds)), 2):
        if abs(math.log(seconds[i] / seconds[j])) > TIE:
            told += 1
            right += (scores[i] > scores[j]) == (seconds[i] < seconds[j])
    by_score = sorted(range(len(scores)), key=lambda i: -scores[i])
    by_time = sorted(range(len(seconds)), key=lambda i: seconds[i])
    return {
        "pairs": right / told if told else math.nan,
        "recall": len({*by_score[:top]} & {*by_time[:top]}) / top,
        "top1": seconds[by_time[0]] / seconds[by_score[0]],
    }


def plot(tasks: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """An SVG: for each task a panel with the median curve of each sampler."""
    wide, high, gap = 360, 220, 50
    parts = []
    names = list(dict.fromkeys(name for curves in tasks.values() for name in curves))
    for place, (task, curves) in enumerate(tasks.items()):
        left, top = gap + (place % 2) * (wide + gap), gap + (place // 2) * (high + gap)
        longest = max(map(len, curves.values()))

        def at(i: int, share: float, left: int = left, top: int = top, n: int = longest) -> str:
            x = left + wide * math.log2(i + 1) / max(1.0, math.log2(n))
            return f"{x:.1f},{top + high * (1 - min(max(share, 0.5), 1.0)) / 0.5:.1f}"

        parts.append(f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(task)}</text>')
        parts.append(
            f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="none" stroke="#888"/>'
        )
        for share in (0.6, 0.7, 0.8, 0.9, 1.0):
            x, y = at(0, share).split(",")
            parts.append(
                f'<line x1="{x}" y1="{y}" x2="{left + wide}" y2="{y}" stroke="#ddd"/>'
                f'<text x="{left - 30}" y="{float(y) + 4}">{share:.0%}</text>'
            )
        for n in (1, 4, *(n for n in CHECKPOINTS if n <= longest)):
            x = at(n - 1, 0.5).split(",")[0]
            parts.append(f'<text x="{x}" y="{top + high + 14}" text-anchor="middle">{n}</text>')
        for name, curve in curves.items():
            points = " ".join(at(i, share) for i, share in enumerate(curve))
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    rows = -(-len(tasks) // 2)
    bottom = gap + rows * (high + gap)
    for place, name in enumerate(names):
        x, colour = gap + 150 * place, _COLOURS[place % len(_COLOURS)]
        parts.append(
            f'<line x1="{x}" y1="{bottom}" x2="{x + 24}" y2="{bottom}" stroke="{colour}" '
            f'stroke-width="3"/><text x="{x + 30}" y="{bottom + 4}">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{gap}" y="{bottom + 24}">share of the best known speed (median of the seeds, '
        "winners measured again together) after so many trials</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * (wide + gap) + gap}" '
        f'height="{bottom + 40}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
