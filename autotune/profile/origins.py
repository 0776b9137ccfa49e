"""Which operators of the original model each call is for, and how that is told in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autotune.profile.observe import function_of

Operators = tuple[str, ...]

WIDE = 90
"""Characters of a line of names, about."""


def operators_of(names: Sequence[str], manifest: Mapping[str, Any]) -> tuple[Operators, ...]:
    """The operators of each of the calls ``names``, as ``manifest`` has them.

    The n-th call of a function is the n-th that the manifest knows. None where nothing is known:
    of what the runtime does itself, of artifacts made before they said it, and where a function is
    called more or less often than the manifest says.
    """
    known: dict[str, list[Operators]] = {}
    for call in manifest.get("calls", ()):
        known.setdefault(call["function"], []).append(tuple(call["operators"]))
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(function_of(name), []).append(place)
    found: list[Operators] = [()] * len(names)
    for function, at in places.items():
        told = known.get(function, [])
        if len(told) == len(at):
            for place, operators in zip(at, told, strict=True):
                found[place] = operators
    return tuple(found)


def told(operators: Iterable[str], wide: int = WIDE) -> str:
    """``operators`` in a line: what is in the same place as the one before without that place."""
    words: list[str] = []
    place, length, left = "", 0, 0
    for name in operators:
        head, slash, last = name.rpartition("/")
        word = last if slash and words and head == place and last else name
        place = head if slash else ""
        if words and (left or length + len(word) > wide):
            left += 1
            continue
        words.append(word)
        length += len(word) + 2
    return ", ".join(words) + (f" and {left} more" if left else "")


def first_of(calls: Sequence[Operators], wide: int = WIDE) -> str:
    """The operators of the first of several calls, and how many others there are."""
    if not calls or not calls[0]:
        return ""
    others = len(calls) - 1
    return told(calls[0], wide) + (f"; {others} other call{'s' * (others > 1)}" if others else "")
