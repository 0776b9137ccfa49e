"""The order in which things that are compared take turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rounds_in_turn(things: Sequence[T], rounds: int) -> list[list[T]]:
    """The orders to measure in: each round begins with another one."""
    count = len(things)
    return [[things[(i + turn) % count] for i in range(count)] for turn in range(rounds)]
