"""What a guided sampler needs to know of a study: its points, and which promise most.

``TaskGuide`` knows a tuning task and a cost model; ``StudyGuide`` knows nothing but the trials of
the study, so that the same sampler serves any Optuna study.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune.search.points import Point, count_of, draw_point, mutate, values_of
from autotune.search.space import JointSpace
from cost_models.base import CostModel, Observation

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from cost_models.base import Scores

    Distributions = dict[str, BaseDistribution]

FAILED = 3600.0
"""The value told to a study for a failed candidate, in seconds: finite, since samplers forget
trials without a value, and slower than any runner would wait for."""


class Guide(ABC):
    """Points of one study and their promise. Called by the sampler only."""

    @abstractmethod
    def search_space(self, study: Study) -> Distributions:
        """The parameters that are proposed together; empty if that is not known yet."""

    def starts(self) -> list[Point]:
        """Points to propose before all others, best guess first."""
        return []

    @abstractmethod
    def count(self, space: Distributions) -> int | None:
        """How many points there are; None where there is a continuum."""

    @abstractmethod
    def points(self, space: Distributions) -> Iterable[Point]:
        """Every point, where ``count`` is not None."""

    @abstractmethod
    def draw(self, space: Distributions, rng: np.random.Generator) -> Point:
        """A point at random."""

    @abstractmethod
    def mutate(self, space: Distributions, point: Point, rng: np.random.Generator) -> Point:
        """A neighbour of ``point``."""

    def valid(self, point: Point) -> bool:
        """Whether it is worth a trial at all."""
        return True

    @abstractmethod
    def learn(self, study: Study, space: Distributions) -> float:
        """Take in what the study knows by now; how far ``scores`` is to be trusted, 0 to 1."""

    @abstractmethod
    def scores(self, space: Distributions, points: Sequence[Point]) -> Scores:
        """One score for each point, higher is better, ``-inf`` for a point that is not valid."""


class TaskGuide(Guide):
    """Guided by a cost model on the decisions of a tuning task.

    ``fit=False`` leaves fitting to the caller, who shares one model among many tasks. With
    ``fit=True`` the model learns from the trials of this study alone, whose values are seconds.
    """

    def __init__(self, joint: JointSpace, model: CostModel, *, fit: bool = True) -> None:
        self.joint = joint
        self.model = model
        self.fit = fit
        self._learned = 0

    def search_space(self, study: Study) -> Distributions:
        """Every parameter of every space; a proposal holds those of one space."""
        return self.joint.distributions

    def starts(self) -> list[Point]:
        """The default of each space."""
        points = (self.joint.point(candidate) for candidate in self.joint.defaults())
        return [point for point in points if point is not None]

    def count(self, space: Distributions) -> int | None:
        """Points of all spaces together."""
        return self.joint.count()

    def points(self, space: Distributions) -> Iterable[Point]:
        """Points of one space after the other."""
        return self.joint.points()

    def draw(self, space: Distributions, rng: np.random.Generator) -> Point:
        """First a space, then its parameters."""
        return self.joint.draw(rng)

    def mutate(self, space: Distributions, point: Point, rng: np.random.Generator) -> Point:
        """In the same space."""
        return self.joint.mutate(point, rng)

    def valid(self, point: Point) -> bool:
        """Whether its space would make a schedule of it."""
        return self.joint.valid(self.joint.candidate(point))

    def learn(self, study: Study, space: Distributions) -> float:
        """The model's own trust in itself for this task."""
        if self.fit:
            told = _told(study)
            if len(told) != self._learned:
                self._learned = len(told)
                self.model.fit([seen for trial in told if (seen := self._observe(trial))])
        return self.model.trust(self.joint.task, self.joint.target)

    def _observe(self, trial: FrozenTrial) -> Observation | None:
        if trial.params.get("space") not in self.joint.spaces:
            return None
        candidate = self.joint.candidate(trial.params)
        features = self.joint.features(candidate)
        if features is None:
            return None
        seconds = None if (trial.value or 0.0) >= FAILED else trial.value
        task, target = self.joint.task, self.joint.target
        return Observation(task, target, candidate, features, seconds, seconds is None)

    def scores(self, space: Distributions, points: Sequence[Point]) -> Scores:
        """The model's ranking."""
        candidates = [self.joint.candidate(point) for point in points]
        return self.model.rank(self.joint.task, self.joint.target, candidates)


class StudyGuide(Guide):
    """Guided by boosted trees on the parameters themselves: for any Optuna study."""

    def __init__(self, *, enough: int = 16, seed: int = 0) -> None:
        """Trust the trees fully from ``enough`` finished trials on."""
        self.enough = enough
        self.seed = seed
        self._trees: Any = None
        self._fitted: tuple[int, tuple[str, ...]] = (0, ())

    def search_space(self, study: Study) -> Distributions:
        """The parameters that all trials so far have in common."""
        from optuna.search_space import IntersectionSearchSpace

        common = IntersectionSearchSpace().calculate(study)
        return {name: found for name, found in common.items() if not found.single()}

    def count(self, space: Distributions) -> int | None:
        """The product over the parameters."""
        return count_of(space)

    def points(self, space: Distributions) -> Iterable[Point]:
        """In the order of the values."""
        import itertools

        columns = [values_of(distribution) or () for distribution in space.values()]
        for values in itertools.product(*columns):
            yield dict(zip(space, values, strict=True))

    def draw(self, space: Distributions, rng: np.random.Generator) -> Point:
        """Each parameter by itself."""
        return draw_point(space, rng)

    def mutate(self, space: Distributions, point: Point, rng: np.random.Generator) -> Point:
        """One to three parameters moved."""
        return mutate(point, space, rng)

    def learn(self, study: Study, space: Distributions) -> float:
        """Fit the trees on the order of the finished trials."""
        told = [trial for trial in _told(study) if space.keys() <= trial.params.keys()]
        state = (len(told), tuple(space))
        if len(told) < 2:
            return 0.0
        if self._trees is None or state != self._fitted:
            self._fit(study, space, told)
            self._fitted = state
        return min(1.0, len(told) / self.enough)

    def _fit(self, study: Study, space: Distributions, told: Sequence[FrozenTrial]) -> None:
        import numpy as np
        import xgboost
        from optuna.study import StudyDirection

        values = np.array([trial.value for trial in told], dtype=float)
        if study.direction == StudyDirection.MINIMIZE:
            values = -values
        # Ranks: an objective may span decades, and one told infinity must not blind the trees.
        ranks = values.argsort(kind="stable").argsort(kind="stable") / len(values)
        data = xgboost.DMatrix(
            self._matrix(space, [trial.params for trial in told]), label=ranks, nthread=1
        )
        settings = {
            "max_depth": 4, "eta": 0.2, "subsample": 0.8, "nthread": 1, "seed": self.seed,
            "tree_method": "hist", "max_bin": 64, "verbosity": 0,
        }  # fmt: skip
        self._trees = xgboost.train(settings, data, 60)

    def _matrix(self, space: Distributions, points: Sequence[Mapping[str, Any]]) -> Any:
        import numpy as np

        rows = np.full((len(points), len(space)), np.nan, dtype=np.float32)
        for line, point in enumerate(points):
            for column, (name, distribution) in enumerate(space.items()):
                try:
                    rows[line, column] = distribution.to_internal_repr(point[name])
                except ValueError:  # told when the choices were others
                    continue
        return rows

    def scores(self, space: Distributions, points: Sequence[Point]) -> Scores:
        """The trees' opinion; all equal before they were fitted."""
        import numpy as np

        if self._trees is None:
            return np.zeros(len(points))
        scores: Scores = self._trees.inplace_predict(self._matrix(space, points)).astype(float)
        return scores


def _told(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
