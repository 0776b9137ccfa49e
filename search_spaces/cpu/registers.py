"""Which register tiles there are: rows of accumulators, vectors of columns."""

from __future__ import annotations

from collections.abc import Iterable

from search_spaces.base import InvalidParameters
from search_spaces.task import Parameters, Target


def divisors(extent: int, most: int) -> list[int]:
    """What divides ``extent``, up to ``most``: tiles that leave no tail."""
    return [d for d in range(1, min(extent, most) + 1) if extent % d == 0]


def register_tile(
    rows: Iterable[int], vectors: Iterable[int], registers: int, *, tall: bool = False
) -> tuple[int, int]:
    """Rows and vectors of the tile with most products for each load that fits ``registers``.

    Beside the accumulators there is room for a row of operands and one more. Of equally good tiles
    it is the one with most vectors, or with most rows if it is to be ``tall``.
    """
    best = (0.0, 1, 1)
    several = list(rows)
    for v in vectors:
        for r in several:
            if r * v + v + 1 <= registers:
                best = max(best, (r * v / (r + v), r if tall else v, v if tall else r))
    return best[1:] if tall else best[:0:-1]


def check_accumulators(target: Target, p: Parameters, rows: str, vectors: str) -> None:
    """Raise ``InvalidParameters`` where the tile of these two parameters leaves no register."""
    if int(p[rows]) * int(p[vectors]) >= target.vector_registers:
        raise InvalidParameters(f"{p[rows]} x {p[vectors]} accumulators exceed the registers")
