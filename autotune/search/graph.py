"""Which of the graphs that a model can be made of is the fastest.

A study over the choices of all graph spaces. What a graph takes is the sum over its tasks of calls
times the best seconds that the database has; of a task that it has none of, the default is measured
first. Graphs share most of their tasks, so that most of them cost no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.measure.base import Runner
from autotune.search.budget import Budget
from autotune.search.guides import FAILED
from autotune.search.loop import tune_tasks
from autotune.search.points import Point, key_of, suggest, values_of
from autotune.search.samplers import quiet_study
from autotune.search.settings import SearchSettings
from search_spaces.graph.base import Choices
from search_spaces.graph.registry import graph_spaces
from search_spaces.task import Target, Task
from tuning_db.database import TuningDatabase

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

    from autotune.graph.model import FusedModel

TRIALS = 32
"""Graphs that are looked at, at most."""

WORTH_IT = 0.995
"""Of the time of the default graph; what promises less is not worth a confirmation."""

Fuse = Callable[[Any, Choices], "FusedModel"]
"""What a module becomes that graph spaces made by these choices."""


@dataclass(frozen=True)
class GraphTrial:
    """A graph: its choices, and what one inference takes by its tasks (infinite: unknown)."""

    choices: Choices
    seconds: float
    fused: FusedModel = field(repr=False)


class GraphSearch:
    """Looks for the fastest graph of ``module``, which graph spaces have not touched yet."""

    def __init__(
        self,
        module: Any,
        target: Target,
        fuse: Fuse,
        price: Callable[[Sequence[Task]], float],
        seed: int = 0,
    ) -> None:
        """``price`` is the seconds of all calls of some tasks, infinite where it is not known."""
        self.module, self.target = module, target
        self.fuse, self.price = fuse, price
        self.seed = seed
        self.trials: dict[tuple[tuple[str, Any], ...], GraphTrial] = {}
        """By the point that made it."""

    def run(self, trials: int = TRIALS) -> GraphTrial | None:
        """The best of up to ``trials`` graphs; None where there is nothing to choose.

        The default comes first, then what differs from it in all places of a space, then in one
        place each; what these promise together is looked at, and what is left goes to TPE.
        """
        from optuna.samplers import TPESampler

        default, flips = self._default()
        if not default:
            return None
        study = quiet_study(TPESampler(seed=self.seed))
        base = self._look(study, default)
        better: Point = {}
        for flip in flips:
            if len(self.trials) >= trials - 1:
                break
            if self._look(study, {**default, **flip}).seconds < base.seconds:
                better.update(flip)
        self._look(study, {**default, **better})
        for _ in range(trials - len(self.trials)):
            self._look(study, None)
        return min(self.trials.values(), key=lambda trial: trial.seconds)

    @property
    def default(self) -> GraphTrial:
        """The graph as it is without any search; only after ``run``."""
        return next(iter(self.trials.values()))

    def _default(self) -> tuple[Point, list[Point]]:
        """The default, and changes of it: every yes or no of one space, then each value of each."""
        default: Point = {}
        wholes: dict[str, Point] = {}
        every: list[Point] = []
        module = self.module
        for space in graph_spaces():
            chosen = space.default(module, self.target)
            for name, distribution in space.parameters(module, self.target).items():
                key = f"{space.name}/{name}"
                default[key] = chosen[name]
                others = [v for v in values_of(distribution) or () if v != chosen[name]]
                every += [{key: value} for value in others]
                for value in others:
                    if isinstance(value, bool):
                        wholes.setdefault(space.name, {})[key] = value
            module = space.apply(module, self.target, chosen)
        return default, [whole for whole in wholes.values() if len(whole) > 1] + every

    def _look(self, study: Study, point: Point | None) -> GraphTrial:
        """The graph of ``point``, or of one that the sampler chooses, told to the study."""
        if point is not None:
            study.enqueue_trial(point)
        trial = study.ask()
        module, choices = self._suggest(trial)
        key = key_of(trial.params)
        found = self.trials.get(key)
        if found is None:
            fused = self.fuse(module, choices)
            found = self.trials[key] = GraphTrial(choices, self.price(fused.tasks), fused)
        study.tell(trial, found.seconds if math.isfinite(found.seconds) else FAILED)
        return found

    def _suggest(self, trial: Trial) -> tuple[Any, Choices]:
        """Choices that ``trial`` makes, and the module that comes of them."""
        choices: dict[str, Mapping[str, Any]] = {}
        module = self.module
        for space in graph_spaces():
            chosen = {
                name: suggest(trial, f"{space.name}/{name}", distribution)
                for name, distribution in space.parameters(module, self.target).items()
            }
            if chosen:
                module = space.apply(module, self.target, chosen)
                choices[space.name] = {"version": space.version, "parameters": chosen}
        return module, choices


class Prices:
    """Seconds of tasks, from the database; a task that it does not know is measured once."""

    def __init__(
        self,
        target: Target,
        runner: Runner,
        database: TuningDatabase,
        settings: SearchSettings,
        tunable: Callable[[Task], bool],
    ) -> None:
        self.target, self.runner, self.database = target, runner, database
        self.settings, self.tunable = settings, tunable
        self.measured = 0
        """Candidates that had to be."""
        self._failed: set[str] = set()

    def __call__(self, tasks: Sequence[Task]) -> float:
        """Seconds of all calls of ``tasks``; infinite where the default of one does not work.

        Tasks that no space can schedule count as nothing: they are no different in other graphs.
        """
        known = [task for task in tasks if self.tunable(task)]
        new = [
            task
            for task in known
            if self._seconds(task) is None and task.workload.key not in self._failed
        ]
        if new:
            settings = SearchSettings(
                budget=Budget(len(new)), sampler="random", rounds=0, transfer=False,
                cache=self.settings.cache,
            )  # fmt: skip
            tune_tasks(new, self.target, self.runner, self.database, settings)
            self.measured += len(new)
            self._failed.update(task.workload.key for task in new if self._seconds(task) is None)
        return sum(task.calls * (self._seconds(task) or math.inf) for task in known)

    def _seconds(self, task: Task) -> float | None:
        best = self.database.best(task.workload.key, self.target.digest)
        return None if best is None else best.seconds


def described(
    trial: GraphTrial, default: GraphTrial, times_as_fast: Mapping[str, float], kept: bool
) -> dict[str, Any]:
    """What a run keeps of a searched graph; ``choices`` are those to build with from now on."""
    return {
        "choices": trial.choices if kept else default.choices,
        "searched": trial.choices,
        "seconds": trial.seconds,
        "default_seconds": default.seconds,
        "times_as_fast": dict(times_as_fast),
        "kept": kept,
    }
