"""The precisions that sums of products may be computed in, by name, and who is fast at them."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.cpu.dot import BFLOAT16, INTEGER
from search_spaces.task import Target

SPACE = "graph.precision"
"""The graph space that chooses among them (``search_spaces.graph.precision``)."""

FULL, HALF, SPLIT, WHOLE = "float32", "bfloat16", "bfloat16x3", "int8"

HALF_ALONE = f"{HALF} alone"
"""bfloat16 for a sum whose data others read as it was."""

Mix = Mapping[str, str]
"""The precision of places, by name; the others are in float32."""


def kinds_of(target: Target) -> tuple[str, ...]:
    """What ``target`` has instructions for, the fastest first."""
    found = [WHOLE] if INTEGER.lanes(target) else []
    return (*found, *((HALF, SPLIT) if BFLOAT16.lanes(target) else ()))
