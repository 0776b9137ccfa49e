"""Numbers of things as people write them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``number`` and ``noun``, which is regular: "1 thread", "2 threads"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
