"""Points of Optuna distributions: drawn, listed and moved without a study.

A sampler that looks at hundreds of points for each trial cannot afford a trial object for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Point = dict[str, Any]
"""A value for each parameter, as Optuna hands it to the objective."""


def key_of(point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A hashable form of ``point``: equal for equal points, whatever the order of names."""
    return tuple(sorted(point.items()))


def values_of(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Every value of ``distribution`` in order, or None where there is a continuum."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution):
        if distribution.single():
            return (distribution.low,)
        if distribution.step is not None:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            return [
                min(distribution.low + i * distribution.step, distribution.high)
                for i in range(count)
            ]
    return None


def count_of(distributions: Mapping[str, BaseDistribution]) -> int | None:
    """How many points there are, or None where there is a continuum."""
    total = 1
    for distribution in distributions.values():
        values = values_of(distribution)
        if values is None:
            return None
        total *= len(values)
    return total


def draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """One value at random: uniform, or uniform in the logarithm where the distribution says so."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(distribution, IntDistribution) and distribution.log:
        exponent = rng.uniform(math.log(distribution.low - 0.5), math.log(distribution.high + 0.5))
        return min(max(round(math.exp(exponent)), distribution.low), distribution.high)
    values = values_of(distribution)
    if values is not None:
        return values[int(rng.integers(len(values)))]
    assert isinstance(distribution, FloatDistribution)
    if distribution.log:
        value = math.exp(rng.uniform(math.log(distribution.low), math.log(distribution.high)))
    else:
        value = float(rng.uniform(distribution.low, distribution.high))
    return min(max(value, distribution.low), distribution.high)


def draw_point(distributions: Mapping[str, BaseDistribution], rng: np.random.Generator) -> Point:
    """One point at random."""
    return {name: draw(distribution, rng) for name, distribution in distributions.items()}


def neighbour(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """A value other than ``value`` (where there is another), most often close to it.

    Choices and integers move by a step or two in either direction two times out of three, since
    spaces list their choices in an order that means something; else anywhere.
    """
    from optuna.distributions import FloatDistribution

    values = values_of(distribution)
    if values is None:
        assert isinstance(distribution, FloatDistribution)
        low, high = distribution.low, distribution.high
        if distribution.log:
            width = 0.1 * (math.log(high) - math.log(low))
            moved = math.exp(math.log(value) + float(rng.normal(0.0, width)))
        else:
            moved = value + float(rng.normal(0.0, 0.1 * (high - low)))
        return min(max(moved, low), high)
    if len(values) < 2:
        return values[0]
    try:
        place = list(values).index(value) if not isinstance(values, range) else values.index(value)
    except ValueError:  # measured when the distribution was another one
        return draw(distribution, rng)
    if rng.random() < 2 / 3:
        step = int(rng.integers(1, 3)) * (1 if rng.random() < 0.5 else -1)
        if 0 <= place + step < len(values):
            return values[place + step]
    other = int(rng.integers(len(values) - 1))
    return values[other + (other >= place)]


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The value of ``distribution`` closest to ``value``; None where nothing there compares."""
    values = values_of(distribution)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if values is None:
        low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
        return min(max(value, low), high) if number else None
    same = [other for other in values if other == value and type(other) is type(value)]
    if same or not number:
        return same[0] if same else None
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return min(numbers, key=lambda other: abs(other - value), default=None)


def mutate(
    point: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    rng: np.random.Generator,
) -> Point:
    """``point`` with one, two or three of its parameters moved."""
    movable = [name for name, found in distributions.items() if not found.single()]
    made = dict(point)
    if not movable:
        return made
    many = min(len(movable), 1 + int(rng.geometric(0.5) > 1) + int(rng.random() < 0.25))
    for place in rng.choice(len(movable), size=many, replace=False):
        name = movable[int(place)]
        made[name] = neighbour(distributions[name], made[name], rng)
    return made


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Ask ``trial`` for a value of ``distribution`` by the public method that it belongs to."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step, log = (
            distribution.low, distribution.high, distribution.step, distribution.log,
        )  # fmt: skip
        return trial.suggest_int(name, low, high, step=step, log=log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """In how many parameters two points differ."""
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())
