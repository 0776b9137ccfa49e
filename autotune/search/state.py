"""What one run of the search knows so far, task by task and altogether."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.measure.base import Measurement, Runner
from autotune.search.drift import DriftLog
from autotune.search.finals import Verdict
from autotune.search.recording import measurement_of, record_of
from autotune.search.settings import SearchSettings
from autotune.search.space import candidate_of
from autotune.search.study import TaskStudy
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.records import Record


@dataclass
class TaskState:
    """One task: its study, and what its finals settled."""

    study: TaskStudy
    verdict: Verdict | None = None
    out: set[str] = field(default_factory=set)
    """Keys of the candidates that failed a second look."""
    incumbent: Candidate | None = None
    """Who won earlier finals, and takes part in the next ones."""
    measurable: bool = True
    """False where there is no reference to compare with: the task keeps its default."""
    restored: int = 0
    """Candidates that earlier runs measured."""

    def restore(self, database: TuningDatabase, runner: Runner | None = None) -> None:
        """Learn from the records of earlier runs, first looks and finals; ``runner`` remembers."""
        key, target = self.study.task.workload.key, self.study.target.digest
        records = list(database.records(key, target, final=False))
        self.restored = self.study.restore(records)
        if runner is not None:
            runner.remember(self.study.task, filter(None, map(measurement_of, records)))
        for record in database.records(key, target, final=True):
            detail = json.loads(record.detail)
            if record.outcome != "measured":
                self.out.add(record.candidate)
            elif told := detail.get("finals"):
                winner = candidate_of(record.space, record.space_version, record.parameters)
                self.verdict = Verdict(winner, told, detail.get("noise", 0.0))
                self.incumbent = winner

    @property
    def tried(self) -> int:
        """Candidates that were measured in this run.

        Failures of earlier runs do not set a task aside: their cause may have been removed.
        """
        return self.study.trials - self.restored

    @property
    def succeeded(self) -> bool:
        """Whether any candidate was measured right."""
        return self.study.best is not None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Seconds of one call: of the best, and of the default (of the best where it failed)."""
        study, verdict = self.study, self.verdict
        if study.best is None:
            return None
        key = study.best.candidate.key
        # A candidate found since the last finals is the best until the next ones.
        settled = verdict is not None and (key in verdict.seconds or key in self.out)
        if settled and verdict is not None and verdict.winner is not None:
            best = verdict.seconds[verdict.winner.key]
            return best, verdict.seconds.get(study.default.key, best)
        return study.best.seconds, study.default_seconds or study.best.seconds

    @property
    def gain(self) -> float:
        """Seconds of one call that first looks promise over the default."""
        if self.study.best is None:
            return 0.0
        if self.study.default_seconds is None:
            return math.inf
        return self.study.default_seconds - self.study.best.seconds


@dataclass
class SearchState:
    """One run over all tasks. ``run`` is its id in the database, ``new`` what it measured."""

    target: Target
    settings: SearchSettings
    run: str
    tasks: list[TaskState]
    drift: DriftLog = field(default_factory=DriftLog)
    new: int = 0
    begun: float = field(default_factory=time.monotonic)
    keeps: bool = False
    """Whether the runner builds a candidate once that it measures several times."""
    ran: float = 0.0
    """Seconds that the new measurements took once their candidates were built."""
    until: float | None = None
    """Seconds that the tasks may take together: less than the settings say where a model takes
    longer than the sum of its tasks."""
    estimates: Mapping[str, float] = field(default_factory=dict)
    """By workload: seconds of a call of tasks that were not measured when the run began."""

    def __post_init__(self) -> None:
        self.until = self.settings.until

    def record(
        self, task: Task, measurement: Measurement, origin: Mapping[str, Any] | None = None
    ) -> Record:
        """A first look as it is stored; ``origin`` says which task the candidate is from."""
        drift = self.drift.note(measurement.drift_seconds)
        self.ran += sum(measurement.seconds.get(stage, 0.0) for stage in ("verify", "run"))
        extra: dict[str, Any] = {} if drift is None else {"drift": drift}
        if origin is not None:
            extra["warm_start"] = dict(origin)
        return record_of(task, self.target, measurement, run=self.run, extra=extra)

    @property
    def done(self) -> int:
        """Measured candidates of all runs."""
        return sum(task.study.trials for task in self.tasks)

    @property
    def reached(self) -> bool:
        """Whether the model is as fast as was asked for, by all that is known of every task."""
        if self.until is None or not all(task.succeeded for task in self.tasks):
            return False
        return self.latency <= self.until

    @property
    def latency(self) -> float:
        """The sum of calls × best seconds over the tasks measured so far."""
        return sum(calls * best for calls, best, _ in self.timed)

    @property
    def timed(self) -> list[tuple[int, float, float]]:
        """Of each task measured so far: calls, and seconds of the best and of the default."""
        found = ((task.study.task.calls, task.seconds) for task in self.tasks)
        return [(calls, *seconds) for calls, seconds in found if seconds is not None]

    @property
    def elapsed(self) -> float:
        """Seconds of this run so far."""
        return time.monotonic() - self.begun

    @property
    def pace(self) -> float:
        """Seconds of one measurement, as this run went so far; 0 before the first."""
        return self.elapsed / self.new if self.new else 0.0

    def looks(self, candidates: int) -> float:
        """Seconds that the finals of so many candidates would take, as this run went so far."""
        again = self.settings.rounds - 1
        if not self.keeps or not self.new:
            return candidates * (1 + again) * self.pace
        return candidates * (self.pace + again * min(self.pace, self.ran / self.new))

    @property
    def succeeded(self) -> bool:
        """Whether any candidate of any task was measured right."""
        return any(task.succeeded for task in self.tasks)

    @property
    def failures(self) -> dict[str, int]:
        """Failed candidates by kind of outcome."""
        found: dict[str, int] = {}
        for task in self.tasks:
            for kind, count in task.study.failures.items():
                found[kind] = found.get(kind, 0) + count
        return found

    def set_aside(self, task: TaskState) -> bool:
        """Whether ``task`` is given up: it cannot be compared, or nothing of it works."""
        if not task.measurable:
            return True
        return not task.succeeded and task.tried >= self.settings.give_up
