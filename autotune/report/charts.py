"""Charts as SVG inside the page: they scale, print, and take their colours from its style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDE, HIGH = 640, 320
LEFT, BOTTOM, TOP, RIGHT = 64, 40, 14, 14


@dataclass(frozen=True)
class Axis:
    """One axis: its ends, what it measures, and whether it is logarithmic."""

    low: float
    high: float
    title: str
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where ``value`` lies, 0 at the low end and 1 at the high one; never beyond."""
        if self.logarithmic:
            part = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            if last - first >= 2:
                return [10.0**power for power in range(first, last + 1)]
            between = (m * 10.0**power for power in range(first - 1, last + 1) for m in (1, 2, 5))
            fine = [value for value in between if self.low <= value <= self.high]
            if last - first >= 1:
                return fine
            low = math.log2(self.low)
            return [2.0**p for p in range(math.ceil(low), math.floor(math.log2(self.high)) + 1)]
        step = 10 ** math.floor(math.log10(self.high - self.low))
        steps = (step / 5, step / 2, step, 2 * step)
        step = next(s for s in steps if (self.high - self.low) / s <= 8)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


class Chart:
    """A plot that is drawn piece by piece."""

    def __init__(self, along: Axis, up: Axis, label: str) -> None:
        """``label`` says in words what the chart shows, for those who do not see it."""
        self._along, self._up, self._label = along, up, label
        self._parts: list[Markup] = []
        self._grid()

    def point(self, x: float, y: float, kind: str, size: float, hint: str) -> None:
        """A dot of area ``size`` (0 to 1), with a text that shows under the pointer."""
        left, top = self._at(x, y)
        radius = 3 + 11 * math.sqrt(size)
        mark = '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"><title>{}</title></circle>'
        self._parts.append(Markup(mark).format(left, top, radius, kind, hint))

    def line(self, points: Sequence[tuple[float, float]], kind: str, steps: bool = False) -> None:
        """A line through ``points``; with ``steps`` it holds each value until the next."""
        places = [self._at(x, y) for x, y in points]
        if steps:
            held = [(b[0], a[1]) for a, b in zip(places, places[1:], strict=False)]
            places = [p for pair in zip(places, [*held, places[-1]], strict=True) for p in pair]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._parts.append(Markup('<polyline points="{}" class="{}"/>').format(text, kind))

    def text(self, x: float, y: float, words: str) -> None:
        """Words above a place."""
        left, top = self._at(x, y)
        mark = '<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
        self._parts.append(Markup(mark).format(left, top - 5, words))

    def svg(self) -> Markup:
        """The finished chart."""
        frame = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
        return frame.format(WIDE, HIGH, self._label, Markup("").join(self._parts))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDE - LEFT - RIGHT) * self._along.share(x)
        return across, HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * self._up.share(y)

    def _grid(self) -> None:
        line = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="grid"/>')
        word = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        foot, right = HIGH - BOTTOM, WIDE - RIGHT
        for value in self._along.ticks():
            x, _ = self._at(value, self._up.low)
            self._parts.append(line.format(x, TOP, x, foot))
            self._parts.append(word.format(x, foot + 14, "middle", f"{value:g}"))
        for value in self._up.ticks():
            _, y = self._at(self._along.low, value)
            self._parts.append(line.format(LEFT, y, right, y))
            self._parts.append(word.format(LEFT - 6, y + 4, "end", f"{value:g}"))
        self._parts.append(word.format((LEFT + right) / 2, HIGH - 8, "middle", self._along.title))
        turned = Markup(
            '<text transform="translate(18 {}) rotate(-90)" text-anchor="middle">{}</text>'
        )
        self._parts.append(turned.format((TOP + foot) / 2, self._up.title))


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Markup]], texts: int = 1) -> Markup:
    """A table that scrolls sideways where the screen is narrow; the first ``texts`` are words."""
    head = Markup("").join(
        Markup('<th class="{}">{}</th>').format("" if i < texts else "number", column)
        for i, column in enumerate(columns)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="{}">{}</td>').format("" if i < texts else "number", cell)
                for i, cell in enumerate(row)
            )
        )
        for row in rows
    )
    frame = Markup(
        '<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    )
    return frame.format(head, body)


def bar(share: float, kind: str = "now") -> Markup:
    """A bar that is ``share`` of its place long."""
    return Markup('<span class="bar {}" style="width:{:.1f}%"></span>').format(
        kind, 100 * min(1.0, max(0.0, share))
    )
