"""A plot of the curves of ``benchmarks.search``, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By sampler: what lies along, and the share of the best known speed."""

WIDE, HIGH, GAP = 360, 200, 50
FLOOR = 0.2
"""The lowest share that is drawn."""

_COLOURS = ("#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#d62728", "#ff7f0e")


def plot(rows: Mapping[str, tuple[Curves, Curves]]) -> str:
    """A row for each task: the median curve of each sampler over trials, and over seconds."""
    names = list(dict.fromkeys(name for row in rows.values() for curves in row for name in curves))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    parts = []
    for line, (task, row) in enumerate(rows.items()):
        top = GAP + line * (HIGH + GAP)
        for place, (curves, what) in enumerate(zip(row, ("trials", "seconds"), strict=True)):
            left = GAP + place * (WIDE + GAP)
            parts.append(_panel(f"{task}, {what}", curves, colours, left, top))
    bottom = GAP + len(rows) * (HIGH + GAP)
    for place, (name, colour) in enumerate(colours.items()):
        x = GAP + 130 * place
        parts.append(
            f'<line x1="{x}" y1="{bottom}" x2="{x + 24}" y2="{bottom}" stroke="{colour}" '
            f'stroke-width="3"/><text x="{x + 30}" y="{bottom + 4}">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{GAP}" y="{bottom + 24}">share of the best known speed (median of the seeds, '
        "winners measured again together)</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * (WIDE + GAP) + GAP}" '
        f'height="{bottom + 40}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, curves: Curves, colours: Mapping[str, str], left: int, top: int) -> str:
    every = [x for along, _ in curves.values() for x in along if x > 0]
    low = min(every, default=1.0)
    low, high = 2.0 ** math.floor(math.log2(low)), max(max(every, default=2.0), 2 * low)
    width = math.log2(high / low)

    def at(x: float, share: float) -> tuple[float, float]:
        along = math.log2(max(x, low) / low) / width
        return left + WIDE * along, top + HIGH * (1 - max(share, FLOOR)) / (1 - FLOOR)

    parts = [
        f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#888"/>',
    ]
    for share in (0.4, 0.6, 0.8, 1.0):
        x, y = at(low, share)
        parts.append(
            f'<line x1="{x}" y1="{y:.1f}" x2="{left + WIDE}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 32}" y="{y + 4:.1f}">{share:.0%}</text>'
        )
    mark = low
    while mark <= high:
        x, _ = at(mark, FLOOR)
        text = f"{mark:g}"
        parts.append(f'<text x="{x:.1f}" y="{top + HIGH + 14}" text-anchor="middle">{text}</text>')
        mark *= 2 if width < 9 else 4
    for name, (along, shares) in curves.items():
        points = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (at(a, s) for a, s in zip(along, shares, strict=True))
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>'
        )
    return "".join(parts)
