"""Which part of a sum comes from where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def shares(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """By name the share of the sum of all parts, the largest first; empty where that is 0."""
    sums: dict[str, float] = {}
    for name, value in parts:
        sums[name] = sums.get(name, 0.0) + value
    total = sum(sums.values())
    if not total > 0:
        return {}
    return {name: sums[name] / total for name in sorted(sums, key=lambda n: (-sums[n], n))}


def shares_text(found: Mapping[str, float]) -> str:
    """One line for people: "cpu.tiled 81 %, cpu.rowwise 19 %"."""
    return ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in found.items())
