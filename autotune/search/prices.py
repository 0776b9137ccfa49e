"""What a graph takes, by its tasks: known, estimated, or else measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from autotune.measure.base import Runner
from autotune.search.budget import Budget
from autotune.search.estimates import latency_model
from autotune.search.loop import tune_tasks
from autotune.search.settings import SearchSettings
from cost_models.latency import LatencyModel
from search_spaces.task import Target, Task
from tuning_db.database import TuningDatabase

LOOKS = 4
"""Candidates of a task that only one graph needs: the default, and what helped similar tasks. But
the default alone where a graph has more new tasks than known ones, and where nothing was known of
the default graph's either."""


class Prices:
    """Seconds of tasks: from the database, by an estimate, or else by a few measurements.

    A graph that is slower than the best one even where the tasks that the database does not know
    take as little as they may, by ``LatencyModel``, costs no measurement; of one with more new
    tasks than known ones it is enough that it is likely to be slower.
    """

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
        self.measured = self.default = 0
        """Candidates that had to be, and those of them that the default graph needs in any case."""
        self.estimated = 0
        """Graphs that were told from the best one without a measurement."""
        self._failed: set[str] = set()
        self._looks = LOOKS

    def __call__(self, tasks: Sequence[Task], bound: float = math.inf) -> float:
        """Seconds of all calls of ``tasks``; infinite where the default of one does not work.

        Above ``bound`` they may be an estimate. Tasks that no space can schedule count as nothing:
        they are no different in other graphs.
        """
        known = [task for task in tasks if self.tunable(task)]
        new = [
            task
            for task in known
            if self._seconds(task) is None and task.workload.key not in self._failed
        ]
        few = 2 * len(new) > len(known)
        if new and bound == math.inf:  # the default graph
            self._looks = 1 if few else LOOKS
            self._measure(new, self._looks)
            self.default = self.measured
        elif new:
            estimates = [(task.calls, self._latency.estimate(task, self.target)) for task in new]
            old = self._sum(task for task in known if task not in new)
            likely = old + sum(n * (e.seconds if e else 0.0) for n, e in estimates)
            least = old + sum(n * (e.least if e else 0.0) for n, e in estimates)
            # To measure a graph that is mostly new costs as much as many others: not on a hope.
            if (likely if few else least) > bound:
                self.estimated += 1
                return likely
            self._measure(new, 1 if few else self._looks)
        return self._sum(known)

    def _measure(self, new: Sequence[Task], looks: int) -> None:
        settings = replace(self.settings, budget=Budget(looks * len(new)), rounds=0, until=None)
        summary = tune_tasks(new, self.target, self.runner, self.database, settings)
        self.measured += summary.new
        self._failed.update(task.workload.key for task in new if self._seconds(task) is None)

    @cached_property
    def _latency(self) -> LatencyModel:
        """Of all that is known once the default graph is."""
        return latency_model(self.database, self.target)

    def _sum(self, tasks: Iterable[Task]) -> float:
        return sum(task.calls * (self._seconds(task) or math.inf) for task in tasks)

    def _seconds(self, task: Task) -> float | None:
        best = self.database.best(task.workload.key, self.target.digest)
        return None if best is None else best.seconds
