"""An Optuna sampler that looks at hundreds of points for each one that it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from autotune.search.guides import Guide, StudyGuide, TaskGuide
from autotune.search.points import Point, distance, draw, key_of
from autotune.search.space import JointSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from cost_models.base import CostModel
    from search_spaces.task import Target, Task


MOST_POINTS = 1_000_000
"""To look at for one proposal."""


class CostModelSampler(BaseSampler):
    """Proposes the points that a cost model ranks best among many drawn and mutated ones.

    Works on any single-objective study::

        study = optuna.create_study(sampler=CostModelSampler(seed=0))

    where trees on the parameters guide it. For a tuning task, ``CostModelSampler.for_task`` guides
    it by the features of the decisions; its objective suggests by ``JointSpace.suggest`` and
    returns seconds.

    A share ``epsilon`` of the proposals, and more while the model is not to be trusted, is left to
    chance: a neighbour of one of the best (a share ``near`` of them), or any point. A point that
    the study has seen, finished or running, is not proposed again while others remain. Proposals
    made while others run keep away from those.
    """

    def __init__(
        self,
        guide: Guide | None = None,
        *,
        seed: int | None = None,
        epsilon: float = 0.1,
        pool: int = 512,
        elites: int = 8,
        near: float = 0.7,
    ) -> None:
        """Rank ``pool`` points for each proposal, half of them mutations of the ``elites`` best."""
        for name, share in (("epsilon", epsilon), ("near", near)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, not {share}")
        for name, number in (("pool", pool), ("elites", elites)):
            if not 1 <= number <= MOST_POINTS:
                raise ValueError(f"{name} must be 1 or more, at most {MOST_POINTS}, not {number}")
        self.guide = StudyGuide(seed=seed or 0) if guide is None else guide
        self.epsilon = epsilon
        self.pool = pool
        self.elites = elites
        self.near = near
        self._rng = np.random.default_rng(seed)

    @classmethod
    def for_task(
        cls, task: Task, target: Target, model: CostModel, *, seed: int | None = None
    ) -> CostModelSampler:
        """A sampler for a study of one task, from whose trials alone ``model`` learns."""
        return cls(TaskGuide(JointSpace(task, target), model), seed=seed)

    def reseed_rng(self) -> None:
        """Start another sequence: called where trials run in parallel."""
        self._rng = np.random.default_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters that the guide proposes together."""
        self._raise_error_if_multi_objective(study)
        return self.guide.search_space(study)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value at random, for a parameter that was in no proposal."""
        self._raise_error_if_multi_objective(study)
        return draw(param_distribution, self._rng)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose one point; empty where the guide knows no parameters yet."""
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        others = [
            (found.state, {n: v for n, v in found.params.items() if n in search_space}, found)
            for found in study.get_trials(deepcopy=False)
            if found.number != trial.number and found.params
        ]
        # A trial with further parameters may be worth another look with other values of those.
        seen = {
            key_of(point)
            for _, point, found in others
            if all(n in point or found.distributions[n].single() for n in found.params)
        }
        for point in self.guide.starts():
            if key_of(point) not in seen:
                return point
        running = [point for state, point, _ in others if state == TrialState.RUNNING]
        trust = self.guide.learn(study, search_space)
        finished = [found for state, _, found in others if state == TrialState.COMPLETE]
        elites = self._best(study, finished, search_space)
        if self._rng.random() < max(self.epsilon, 1.0 - trust):
            return self._explore(search_space, seen, elites)
        pool = self._pool(search_space, seen, elites)
        found = self._exploit(search_space, pool, running)
        return found or self._explore(search_space, seen, elites)

    def _best(
        self, study: Study, finished: Sequence[FrozenTrial], space: dict[str, BaseDistribution]
    ) -> list[Point]:
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        ranked = sorted(finished, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
        return [
            {name: value for name, value in trial.params.items() if name in space}
            for trial in ranked[: self.elites]
        ]

    def _pool(
        self,
        space: dict[str, BaseDistribution],
        seen: set[tuple[tuple[str, Any], ...]],
        elites: Sequence[Point],
    ) -> list[Point]:
        count = self.guide.count(space)
        if count is not None and count <= 2 * self.pool:
            return [point for point in self.guide.points(space) if key_of(point) not in seen]
        made: dict[tuple[tuple[str, Any], ...], Point] = {}
        for i in range(self.pool):
            if elites and i % 2:
                point = self._offspring(space, elites)
            else:
                point = self.guide.draw(space, self._rng)
            key = key_of(point)
            if key not in seen and len(point) <= len(space):
                made[key] = point
        return list(made.values())

    def _exploit(
        self, space: dict[str, BaseDistribution], pool: Sequence[Point], running: Sequence[Point]
    ) -> Point:
        if not pool:
            return {}
        scores = self.guide.scores(space, pool)
        ranked = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
        # What runs now will tell about its neighbours by itself: look elsewhere meanwhile.
        for i in ranked[:16]:
            if all(distance(pool[i], point) > 1 for point in running):
                return pool[i]
        return pool[ranked[0]] if ranked else {}

    def _offspring(self, space: dict[str, BaseDistribution], elites: Sequence[Point]) -> Point:
        # Better ones have more of it: the first elite half as much again as the second.
        place = min(int(self._rng.geometric(0.35)) - 1, len(elites) - 1)
        return self.guide.mutate(space, elites[place], self._rng)

    def _explore(
        self,
        space: dict[str, BaseDistribution],
        seen: set[tuple[tuple[str, Any], ...]],
        elites: Sequence[Point],
    ) -> Point:
        close = bool(elites) and self._rng.random() < self.near
        for i in range(128):
            # Around the best all may be known or refused: then anywhere.
            if close and i < 64:
                point = self._offspring(space, elites)
            else:
                point = self.guide.draw(space, self._rng)
            if key_of(point) not in seen and self.guide.valid(point):
                return point
        count = self.guide.count(space)
        if count is not None:
            # Few points are left, or few are valid: list them. The bound keeps a space of millions
            # of refused points from holding up the study.
            limit = 16 * self.pool
            start = int(self._rng.integers(max(1, min(count, 16 * limit) - limit + 1)))
            left = [
                point
                for point in islice(self.guide.points(space), start, start + limit)
                if key_of(point) not in seen and self.guide.valid(point)
            ]
            if left:
                return left[int(self._rng.integers(len(left)))]
        return self.guide.draw(space, self._rng)
