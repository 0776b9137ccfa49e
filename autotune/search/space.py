"""All spaces that match one task, joined into one search space.

Which space to use is itself a parameter, called "space"; the parameters of a space are named
"<space>.<parameter>" and exist only where that space was chosen. So one study searches all of them,
and no trial is spent on values that nothing reads.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autotune.errors import AutotuneError
from autotune.search.points import (
    Point,
    count_of,
    draw_point,
    mutate,
    nearest,
    suggest,
    values_of,
)
from cost_models.features import features_or_none
from search_spaces.base import SearchSpace
from search_spaces.registry import spaces_for
from search_spaces.task import Candidate, Target, Task

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.trial import Trial

SPACE = "space"


class NoSpace(AutotuneError):
    """No search space matches the task: an installation without its built-in spaces."""


class JointSpace:
    """The joined search space of one task. Asks each space for its parameters once."""

    def __init__(
        self, task: Task, target: Target, spaces: Sequence[SearchSpace] | None = None
    ) -> None:
        """Join ``spaces``, or all that match; raises ``NoSpace`` where there is none."""
        self.task = task
        self.target = target
        found = spaces_for(task, target) if spaces is None else list(spaces)
        if not found:
            raise NoSpace(f"no search space matches task {task.workload.name!r}")
        self.spaces: dict[str, SearchSpace] = {space.name: space for space in found}
        self._own: dict[str, dict[str, BaseDistribution]] = {
            space.name: {
                f"{space.name}.{name}": distribution
                for name, distribution in space.parameters(task, target).items()
            }
            for space in found
        }

    @cached_property
    def choice(self) -> CategoricalDistribution:
        """The distribution of the parameter "space"."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(tuple(self.spaces))

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter of every space, and "space"."""
        every: dict[str, BaseDistribution] = {SPACE: self.choice}
        for own in self._own.values():
            every.update(own)
        return every

    def distributions_of(self, space: str) -> dict[str, BaseDistribution]:
        """The parameters of a trial that chose ``space``, "space" included."""
        return {SPACE: self.choice, **self._own[space]}

    def defaults(self) -> list[Candidate]:
        """The default of each space; the first is what an untuned build uses."""
        return [
            Candidate(space.name, space.version, space.default(self.task, self.target))
            for space in self.spaces.values()
        ]

    def features(self, candidate: Candidate) -> dict[str, float] | None:
        """The numbers of its decisions, or None where its space refuses it."""
        space = self.spaces.get(candidate.space)
        if space is None:
            return None
        return features_or_none(self.task, self.target, candidate, space)

    def valid(self, candidate: Candidate) -> bool:
        """Whether its space would make a schedule of it."""
        return self.features(candidate) is not None

    def count(self, space: str | None = None) -> int | None:
        """Points of ``space``, or of all of them; None where there is a continuum."""
        if space is not None:
            return count_of(self._own[space])
        counts = [count_of(own) for own in self._own.values()]
        return None if None in counts else sum(count or 0 for count in counts)

    def points(self, space: str | None = None) -> Iterator[Point]:
        """Every point of ``space``, or of all of them. Only where ``count`` is not None."""
        for name in self.spaces if space is None else (space,):
            own = self._own[name]
            columns = [values_of(distribution) or () for distribution in own.values()]
            for values in itertools.product(*columns):
                yield {SPACE: name, **dict(zip(own, values, strict=True))}

    def draw(self, rng: np.random.Generator, space: str | None = None) -> Point:
        """A point at random: first the space (each as likely), then its parameters."""
        name = list(self.spaces)[int(rng.integers(len(self.spaces)))] if space is None else space
        return {SPACE: name, **draw_point(self._own[name], rng)}

    def mutate(self, point: Mapping[str, Any], rng: np.random.Generator) -> Point:
        """A neighbour of ``point`` in the same space."""
        return mutate(point, self._own[point[SPACE]], rng)

    def candidate(self, point: Mapping[str, Any]) -> Candidate:
        """The candidate that Optuna's parameters stand for."""
        name = point[SPACE]
        cut = len(name) + 1
        return Candidate(
            name,
            self.spaces[name].version,
            {parameter[cut:]: point[parameter] for parameter in self._own[name]},
        )

    def point(self, candidate: Candidate) -> Point | None:
        """Optuna's parameters of ``candidate``; None where it is no point of this space.

        That is so for records of a space that is not installed or changed since, and for a
        default that its space does not offer among its choices.
        """
        space = self.spaces.get(candidate.space)
        if space is None or space.version != candidate.version:
            return None
        own = self._own[space.name]
        made: Point = {SPACE: space.name}
        for name, value in candidate.parameters.items():
            distribution = own.get(f"{space.name}.{name}")
            if distribution is None:
                return None
            try:
                inside = distribution._contains(distribution.to_internal_repr(value))
            except ValueError:
                return None
            if not inside:
                return None
            made[f"{space.name}.{name}"] = value
        return made if len(made) == len(own) + 1 else None

    def adapted(self, candidate: Candidate) -> Candidate | None:
        """``candidate`` of a similar task as one of this: numbers as near as its choices allow.

        What it does not say, or says in a word that is no choice here, is as in the default. None
        where its space does not match this task, or is of another version.
        """
        space = self.spaces.get(candidate.space)
        if space is None or space.version != candidate.version:
            return None
        made: dict[str, Any] = dict(space.default(self.task, self.target))
        cut = len(space.name) + 1
        for parameter, distribution in self._own[space.name].items():
            name = parameter[cut:]
            if name in candidate.parameters:
                value = nearest(distribution, candidate.parameters[name])
                if value is not None:
                    made[name] = value
        return Candidate(space.name, space.version, made)

    def suggest(self, trial: Trial) -> Candidate:
        """Define-by-run: let the trial's sampler choose the space, then its parameters."""
        name = trial.suggest_categorical(SPACE, self.choice.choices)
        point: Point = {SPACE: name}
        for parameter, distribution in self._own[str(name)].items():
            point[parameter] = suggest(trial, parameter, distribution)
        return self.candidate(point)


def parameters_text(candidate: Candidate) -> str:
    """The parameters as JSON text, the same for equal parameters."""
    return json.dumps(dict(candidate.parameters), sort_keys=True)


def candidate_of(space: str, version: int, parameters: str) -> Candidate:
    """The candidate of a stored text; raises ``ValueError`` where it is no JSON object."""
    found = json.loads(parameters)
    if not isinstance(found, dict):
        raise ValueError(f"parameters are no JSON object: {parameters!r}")
    return Candidate(space, version, found)
