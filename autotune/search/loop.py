"""The search over all tasks of a model: ask, measure, record, learn; then the finals.

The database is the only memory. Every measurement is in it before the next candidate is asked for,
so that a search that was killed continues where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from autotune.errors import AutotuneError
from autotune.measure.base import Runner, TaskNotMeasurable
from autotune.search.budget import Standing, next_task
from autotune.search.contest import hold_finals, seconds_needed
from autotune.search.drift import DriftLog
from autotune.search.estimates import from_database
from autotune.search.knowledge import Knowledge, grounded
from autotune.search.models import make_model, unguided
from autotune.search.progress import Progress, SearchSummary, Stopped
from autotune.search.recording import register_model, target_row, versions_text, workload_row
from autotune.search.samplers import guided
from autotune.search.settings import SearchSettings
from autotune.search.state import SearchState, TaskState
from autotune.search.study import TaskStudy
from autotune.search.telling import progress_of, summary_of
from cost_models.base import CostModel
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.drift import drift_seconds
from tuning_db.records import ModelRow

MOST_FOR_FINALS = 0.25
"""Share of a time budget that is kept for the finals at most."""

MOST_ASKED = 1.1
"""How many times as fast the tasks have to become at most before the whole model is timed again:
on a busy machine it may have looked slower than it is."""


class RunnerFault(AutotuneError):
    """A runner broke its contract."""


def tune_tasks(
    tasks: Sequence[Task],
    target: Target,
    runner: Runner,
    database: TuningDatabase,
    settings: SearchSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    model: ModelRow | None = None,
    whole: Callable[[], float] | None = None,
) -> SearchSummary:
    """Search schedules for ``tasks`` on ``target`` and leave the winners in ``database``.

    Continues what earlier runs in the same database began: their candidates count against
    ``settings.budget.trials`` and are not measured again. ``progress`` is called after every
    measurement. ``model`` names what the tasks belong to, for people who read the database.
    ``whole`` times the model built with the winners, once their sum is at most ``settings.until``:
    how many times as long it takes as it may. Above 1 the search goes on.

    A failed candidate is a record; an interruption (``KeyboardInterrupt``) ends the search with
    ``stopped == "interrupted"`` and everything measured kept. Raises what the runner and the
    database raise for faults of their own, ``InputError`` for an unknown sampler, and ``NoSpace``
    for a task that no space matches. The runner is not closed.
    """
    chosen = SearchSettings() if settings is None else settings
    told = progress or (lambda _: None)
    cost_model = _cost_model(chosen)
    # Made before anything is written: an unknown sampler leaves the database as it was.
    studies = [
        TaskStudy(
            task,
            target,
            sampler=chosen.sampler,
            model=cost_model,
            seed=chosen.seed,
            patience=chosen.patience,
        )
        for task in tasks
    ]
    run = _begin_run(tasks, target, database, chosen, model)
    drift = DriftLog(drift_seconds(database, target.digest))
    state = SearchState(
        target,
        chosen,
        run,
        [TaskState(study) for study in studies],
        drift,
        keeps=runner.keeps,
    )
    for task in state.tasks:
        task.restore(database, runner)
    if chosen.transfer:
        known = Knowledge(database, target)
        if cost_model is not None:
            grounded(cost_model, database, target, known)
        for task in state.tasks:
            task.study.seeds = known.seeds(task.study.joint)
    if progress is not None:
        new = [task.study.task for task in state.tasks if task.seconds is None]
        state.estimates = from_database(new, target, database)
    search = _Search(state, runner, database, cost_model, told)
    try:
        while True:
            stopped = search.run()
            if stopped != "all_failed":
                hold_finals(
                    state, runner, database, lambda task: told(progress_of(state, "finals", task))
                )
            # Side by side the winners may turn out to be slower than they looked: then on it goes.
            if stopped != "reached" or (state.reached and _confirmed(state, whole)):
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    database.finish_run(run)
    return summary_of(state, database, stopped)


def _confirmed(state: SearchState, whole: Callable[[], float] | None) -> bool:
    """Whether the model as a whole is as fast as its tasks promise; asks more of them if not."""
    taken = 1.0 if whole is None else whole()
    if taken <= 1.0:
        return True
    state.until = state.latency / min(taken, MOST_ASKED)
    return False


def _cost_model(settings: SearchSettings) -> CostModel | None:
    """The model that all tasks share, where the sampler is guided by one."""
    if guided(settings.sampler):
        return make_model(settings.cost_model, settings.seed)
    if settings.cost_model is not None:
        raise unguided(str(settings.sampler))
    return None


def _begin_run(
    tasks: Sequence[Task],
    target: Target,
    database: TuningDatabase,
    settings: SearchSettings,
    model: ModelRow | None,
) -> str:
    """Register what is searched and begin a run of it; its id."""
    with database.transaction():
        database.register_target(target_row(target))
        for task in tasks:
            database.register(workload_row(task))
        if model is not None:
            register_model(database, model, target, tasks)
        return database.begin_run(
            target.digest,
            model.digest if model is not None else None,
            settings.described(),
            json.loads(versions_text()),
        )


class _Search:
    """First looks: asks the studies in turn, until there is a reason to stop."""

    def __init__(
        self,
        state: SearchState,
        runner: Runner,
        database: TuningDatabase,
        cost_model: CostModel | None,
        told: Callable[[Progress], None],
    ) -> None:
        self.state, self.settings = state, state.settings
        self.runner, self.database, self.told = runner, database, told
        self.cost_model = cost_model
        self.fitted = 0
        """How many observations the cost model learned from."""

    def run(self) -> Stopped:
        """Search until the budget is used up, or nothing more is to be gained; say which."""
        state = self.state
        while True:
            left = self.settings.budget.left(state.done)
            if left <= 0:
                return "budget"
            seconds = self._seconds_left()
            if seconds <= 0:
                return "time"
            if state.new >= self.settings.give_up and not state.succeeded:
                return "all_failed"
            if state.reached:
                return "reached"
            index = next_task([self._standing(task) for task in state.tasks])
            if index is None:
                return "converged" if state.succeeded or not state.new else "all_failed"
            task = state.tasks[index]
            self._fit()
            asked = task.study.ask(int(min(self._batch(task, seconds), left)))
            if asked:
                self._measure(task, asked)

    def _batch(self, task: TaskState, seconds: float) -> int:
        """How many candidates to ask for while ``seconds`` are left."""
        # The default comes alone, and so does each of the last candidates before time is up.
        many = self.settings.batch if task.study.trials else 1
        if math.isfinite(seconds) and seconds < 2 * many * self.state.pace:
            many = 1
        if not task.succeeded:  # no more than it takes to give up
            many = min(many, self.settings.give_up - task.tried)
            if not self.state.succeeded:
                many = min(many, self.settings.give_up - self.state.new)
        return many

    def _standing(self, state: TaskState) -> Standing:
        study, task = state.study, state.study.task
        finished = study.finished or self.state.set_aside(state)
        return Standing(task.calls, task.flops, task.bytes, tuple(study.history), finished)

    def _seconds_left(self) -> float:
        bound = self.settings.budget.seconds
        if bound is None:
            return math.inf
        kept = min(MOST_FOR_FINALS * bound, seconds_needed(self.state))
        return bound - self.state.elapsed - kept

    def _fit(self) -> None:
        """Let the cost model learn; nothing is being measured now."""
        seen = [found for task in self.state.tasks for found in task.study.observations]
        if self.cost_model is not None and len(seen) != self.fitted:
            self.cost_model.fit(seen)
            self.fitted = len(seen)

    def _measure(self, task: TaskState, asked: Sequence[Candidate]) -> None:
        study, state = task.study, self.state
        came = 0
        try:
            for measurement in self.runner.run(study.task, asked):
                origin = study.origin(measurement.candidate)
                self.database.add(state.record(study.task, measurement, origin))
                study.tell(measurement)
                state.new += 1
                came += 1
                self.told(progress_of(state, "search", task))
        except TaskNotMeasurable:
            task.measurable = False
            return
        finally:
            study.forget(asked)
        if came != len(asked):
            raise RunnerFault(
                f"The runner gave {came} measurements of {len(asked)} candidates: "
                "report this as a fault of the runner."
            )
