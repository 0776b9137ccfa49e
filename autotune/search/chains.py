"""The best choices along a chain, of which only neighbours act on each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)


def best_along(
    values: Sequence[Sequence[Value]],
    alone: Callable[[int, Value], float],
    together: Callable[[int, Value, Value], float],
) -> list[Value]:
    """The value of each place with the least total cost, by dynamic programming.

    ``values`` are what each place may be, ``alone`` what a value costs at a place, and ``together``
    what it costs besides that a place and the next one have these values. Of equal totals the one
    that comes first in ``values`` wins. Raises ``ValueError`` where a place has no value.
    """
    if not values or not all(values):
        raise ValueError("each place of a chain needs a value")
    costs = {value: alone(0, value) for value in values[0]}
    before: list[dict[Value, Value]] = []
    for place in range(1, len(values)):
        came: dict[Value, Value] = {}
        reached: dict[Value, float] = {}
        for value in values[place]:
            totals = {one: cost + together(place - 1, one, value) for one, cost in costs.items()}
            came[value] = min(totals, key=totals.__getitem__)
            reached[value] = totals[came[value]] + alone(place, value)
        before.append(came)
        costs = reached
    chosen = [min(costs, key=costs.__getitem__)]
    for came in reversed(before):
        chosen.append(came[chosen[-1]])
    return chosen[::-1]
