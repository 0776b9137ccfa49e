"""The search over all tasks of a model: ask, measure, record, learn; then the finals.

The database is the only memory. Every measurement is in it before the next candidate is asked for,
so that a search that was killed continues where it was.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence

from autotune.errors import AutotuneError
from autotune.measure.base import Measurement, Runner, TaskNotMeasurable
from autotune.search.budget import Standing, next_task
from autotune.search.finals import Verdict, judge, pooled, rounds_in_turn
from autotune.search.progress import Progress, SearchSummary, Stage, Stopped, TaskResult
from autotune.search.recording import record_of, target_row, versions_text, workload_row
from autotune.search.settings import SearchSettings
from autotune.search.space import candidate_of
from autotune.search.study import TaskStudy
from cost_models.base import CostModel
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.records import ModelRow, Record, TaskRow

ATTEMPTS = 3
"""How often the finals of a task are held where leaders failed and others move up."""

MOST_FOR_FINALS = 0.25
"""Share of a time budget that is kept for the finals at most."""


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
) -> SearchSummary:
    """Search schedules for ``tasks`` on ``target`` and leave the winners in ``database``.

    Continues what earlier runs in the same database began: their candidates count against
    ``settings.budget.trials`` and are not measured again. ``progress`` is called after every
    measurement. ``model`` names what the tasks belong to, for people who read the database.

    A failed candidate is a record; an interruption (``KeyboardInterrupt``) ends the search with
    ``stopped == "interrupted"`` and everything measured kept. Raises what the runner and the
    database raise for faults of their own, ``InputError`` for an unknown sampler, and ``NoSpace``
    for a task that no space matches. The runner is not closed.
    """
    chosen = SearchSettings() if settings is None else settings
    search = _Search(tasks, target, runner, database, chosen, progress or (lambda _: None), model)
    return search.run()


class _Search:
    """The state of one run of ``tune_tasks``."""

    def __init__(
        self,
        tasks: Sequence[Task],
        target: Target,
        runner: Runner,
        database: TuningDatabase,
        settings: SearchSettings,
        progress: Callable[[Progress], None],
        model: ModelRow | None,
    ) -> None:
        self.target, self.runner, self.database = target, runner, database
        self.settings, self.progress = settings, progress
        self.cost_model: CostModel | None = None
        if settings.sampler == "cost-model":
            from cost_models.xgboost import XGBoostModel

            self.cost_model = XGBoostModel(seed=settings.seed)
        # Made before anything is written: an unknown sampler leaves the database as it was.
        self.studies = [
            TaskStudy(
                task,
                target,
                sampler=settings.sampler,
                model=self.cost_model,
                seed=settings.seed,
                patience=settings.patience,
            )
            for task in tasks
        ]
        self.run_id = self._register(tasks, model)
        self.verdicts: dict[str, Verdict] = {}
        self.out: dict[str, set[str]] = {}
        """By workload, the candidates that failed a second look."""
        self.unmeasurable: set[str] = set()
        """Workloads without a reference to compare with: their tasks keep the default."""
        self.fitted = 0
        self.new = 0
        self.begun = time.monotonic()
        # Failures of earlier runs do not set a task aside: their cause may have been removed.
        self.restored: dict[str, int] = {}
        for study in self.studies:
            self.restored[study.task.workload.key] = study.restore(
                database.records(study.task.workload.key, target.digest, final=False)
            )
            self._restore_finals(study)

    def _restore_finals(self, study: TaskStudy) -> None:
        key = study.task.workload.key
        self.out[key] = set()
        for record in self.database.records(key, self.target.digest, final=True):
            told = json.loads(record.detail).get("finals")
            if record.outcome != "measured":
                self.out[key].add(record.candidate)
            elif told:
                winner = candidate_of(record.space, record.space_version, record.parameters)
                noise = json.loads(record.detail).get("noise", 0.0)
                self.verdicts[key] = Verdict(winner, told, noise)

    def _register(self, tasks: Sequence[Task], model: ModelRow | None) -> str:
        with self.database.transaction():
            self.database.register_target(target_row(self.target))
            for task in tasks:
                self.database.register(workload_row(task))
            if model is not None:
                self.database.register_model(
                    model.digest,
                    model.name,
                    self.target.digest,
                    [TaskRow(t.workload.key, t.calls, t.flops, t.bytes) for t in tasks],
                )
            return self.database.begin_run(
                self.target.digest,
                model.digest if model is not None else None,
                self.settings.described(),
                json.loads(versions_text()),
            )

    # The run

    def run(self) -> SearchSummary:
        """Search, hold the finals, and sum up."""
        try:
            stopped = self._search()
            if stopped != "all_failed":
                self._finals()
        except KeyboardInterrupt:
            stopped = "interrupted"
        self.database.finish_run(self.run_id)
        return self._summary(stopped)

    @property
    def done(self) -> int:
        """Measured candidates of all runs."""
        return sum(study.trials for study in self.studies)

    @property
    def elapsed(self) -> float:
        """Seconds of this run so far."""
        return time.monotonic() - self.begun

    def _search(self) -> Stopped:
        while True:
            left = self.settings.budget.left(self.done)
            if left <= 0:
                return "budget"
            seconds = self._seconds_left()
            if seconds <= 0:
                return "time"
            if self.new >= self.settings.give_up and not self._any_success():
                return "all_failed"
            index = next_task([self._standing(study) for study in self.studies])
            if index is None:
                return "converged" if self._any_success() or not self.new else "all_failed"
            study = self.studies[index]
            # The default comes alone, and so does each of the last candidates before time is up.
            many = self.settings.batch if study.trials else 1
            if math.isfinite(seconds) and seconds < 2 * many * self._pace():
                many = 1
            if study.best is None:  # no more than it takes to give up
                many = min(many, self.settings.give_up - self._tried(study))
                if not self._any_success():
                    many = min(many, self.settings.give_up - self.new)
            self._fit()
            asked = study.ask(int(min(many, left)))
            if asked:
                self._measure(study, asked)

    def _standing(self, study: TaskStudy) -> Standing:
        task = study.task
        finished = study.finished or self._set_aside(study)
        return Standing(task.calls, task.flops, task.bytes, tuple(study.history), finished)

    def _set_aside(self, study: TaskStudy) -> bool:
        if study.task.workload.key in self.unmeasurable:
            return True
        return study.best is None and self._tried(study) >= self.settings.give_up

    def _tried(self, study: TaskStudy) -> int:
        """Candidates of this task that were measured in this run."""
        return study.trials - self.restored[study.task.workload.key]

    def _any_success(self) -> bool:
        return any(study.best is not None for study in self.studies)

    def _seconds_left(self) -> float:
        bound = self.settings.budget.seconds
        if bound is None:
            return math.inf
        return bound - self.elapsed - min(MOST_FOR_FINALS * bound, self._finals_seconds())

    def _pace(self) -> float:
        """Seconds of one measurement, as this run went so far."""
        return self.elapsed / self.new if self.new else 0.0

    def _finals_seconds(self) -> float:
        looks = sum(len(self._finalists(study)) for study in self.studies)
        return looks * self.settings.rounds * self._pace()

    def _fit(self) -> None:
        """Let the cost model learn; nothing is being measured now."""
        seen = [observation for study in self.studies for observation in study.observations]
        if self.cost_model is not None and len(seen) != self.fitted:
            self.cost_model.fit(seen)
            self.fitted = len(seen)

    def _measure(self, study: TaskStudy, asked: Sequence[Candidate]) -> None:
        came = 0
        try:
            for measurement in self.runner.run(study.task, asked):
                record = record_of(study.task, self.target, measurement, run=self.run_id)
                self.database.add(record)
                study.tell(measurement)
                self.new += 1
                came += 1
                self.progress(self._progress("search", study))
        except TaskNotMeasurable:
            self.unmeasurable.add(study.task.workload.key)
            return
        finally:
            study.forget(asked)
        if came != len(asked):
            raise RunnerFault(
                f"The runner gave {came} measurements of {len(asked)} candidates: "
                "report this as a fault of the runner."
            )

    # The finals

    def _finalists(self, study: TaskStudy) -> list[Candidate]:
        """The default and those that looked faster; empty where there is nothing to compare."""
        if self.settings.rounds < 1 or study.best is None:
            return []
        base = math.inf if study.default_seconds is None else study.default_seconds
        out = self.out[study.task.workload.key]
        leaders = [
            best.candidate
            for best in study.leaders(self.settings.finalists + 1 + len(out))
            if best.seconds < base and best.candidate.key not in {study.default.key, *out}
        ][: self.settings.finalists]
        if not leaders or (study.default_seconds is None and len(leaders) < 2):
            return []
        return leaders if study.default_seconds is None else [study.default, *leaders]

    def _finals(self) -> None:
        # What may gain most is compared first, in case time runs out.
        order = sorted(self.studies, key=lambda s: -s.task.calls * _gain(s))
        bound = self.settings.budget.seconds
        for study in order:
            for _ in range(ATTEMPTS):
                finalists = self._finalists(study)
                last = self.verdicts.get(study.task.workload.key)
                if not finalists or (last and last.seconds.keys() >= {c.key for c in finalists}):
                    break
                needed = len(finalists) * self.settings.rounds * self._pace()
                if bound is not None and self.elapsed + needed > bound:
                    break
                self._final(study, finalists)

    def _final(self, study: TaskStudy, finalists: Sequence[Candidate]) -> None:
        looks: dict[str, list[Measurement]] = {candidate.key: [] for candidate in finalists}
        for turn in rounds_in_turn(finalists, self.settings.rounds):
            # One that failed a look is out already. One at a time: a runner may build ahead or
            # change the order, and what is compared must be measured in turn.
            for candidate in turn:
                if not any(look.outcome.kind != "measured" for look in looks[candidate.key]):
                    looks[candidate.key].extend(self.runner.run(study.task, [candidate]))
            self.progress(self._progress("finals", study))
        verdict = judge(study.default, looks)
        self.verdicts[study.task.workload.key] = verdict
        # A look that failed is recorded: it disqualifies. Of the others only the winner becomes a
        # final record, since the fastest final record is what is compiled, and within the noise
        # that would be a loser. What the losers took is in its detail.
        for seen in looks.values():
            for look in seen:
                if look.outcome.kind != "measured":
                    self.out[study.task.workload.key].add(look.candidate.key)
                    self._add_final(study, look, {})
        if verdict.winner is not None:
            won = looks[verdict.winner.key]
            told = {
                "finals": dict(verdict.seconds),
                "rounds": self.settings.rounds,
                "noise": verdict.noise,
            }
            self._add_final(study, pooled(won, verdict.seconds[verdict.winner.key]), told)

    def _add_final(self, study: TaskStudy, look: Measurement, told: dict[str, object]) -> None:
        self.database.add(
            record_of(study.task, self.target, look, run=self.run_id, final=True, extra=told)
        )

    # What is told

    def _seconds_of(self, study: TaskStudy) -> tuple[float, float] | None:
        """Seconds of one call: of the best, and of the default (of the best where it failed)."""
        if study.best is None:
            return None
        key, verdict = study.best.candidate.key, self.verdicts.get(study.task.workload.key)
        settled = verdict is not None and (
            key in verdict.seconds or key in self.out[study.task.workload.key]
        )
        # A candidate found since the last finals is the best until the next ones.
        if settled and verdict is not None and verdict.winner is not None:
            best = verdict.seconds[verdict.winner.key]
            return best, verdict.seconds.get(study.default.key, best)
        return study.best.seconds, study.default_seconds or study.best.seconds

    def _latencies(self) -> tuple[float, float, int]:
        latency = baseline = 0.0
        measured = 0
        for study in self.studies:
            seconds = self._seconds_of(study)
            if seconds is not None:
                measured += 1
                latency += study.task.calls * seconds[0]
                baseline += study.task.calls * seconds[1]
        return latency, baseline, measured

    def _failures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for study in self.studies:
            for kind, count in study.failures.items():
                found[kind] = found.get(kind, 0) + count
        return found

    def _progress(self, stage: Stage, study: TaskStudy) -> Progress:
        latency, baseline, measured = self._latencies()
        budget, done, elapsed = self.settings.budget, self.done, self.elapsed
        bounds = []
        if budget.trials is not None:
            bounds.append(budget.left(done) * self._pace() + self._finals_seconds())
        if budget.seconds is not None:
            bounds.append(max(0.0, budget.seconds - elapsed))
        return Progress(
            stage=stage,
            task=study.task.workload.name,
            done=done,
            total=budget.trials,
            elapsed=elapsed,
            left=min(bounds) if bounds and stage == "search" else None,
            rate=self.new / elapsed if elapsed > 0 else 0.0,
            latency=latency,
            baseline=baseline,
            tasks_measured=measured,
            tasks=len(self.studies),
            failures=self._failures(),
        )

    def _result(self, study: TaskStudy, stopped: Stopped) -> TaskResult:
        # Asked of the database, so that what is told here is what is compiled later.
        record: Record | None = self.database.best(study.task.workload.key, self.target.digest)
        winner = None
        if record is not None:
            winner = candidate_of(record.space, record.space_version, record.parameters)
        seconds = self._seconds_of(study)
        reason = "interrupted" if stopped == "interrupted" else "budget"
        if self._set_aside(study):
            reason = "set aside"
        elif study.finished:
            reason = "exhausted" if study.exhausted else "converged"
        return TaskResult(
            task=study.task,
            winner=winner,
            seconds=record.seconds if record is not None else None,
            default_seconds=(
                seconds[1] if seconds is not None and study.default_seconds is not None else None
            ),
            trials=study.trials,
            failures=dict(study.failures),
            tuned=winner is not None and winner.key != study.default.key,
            final=record is not None and record.final,
            reason=reason,
        )

    def _summary(self, stopped: Stopped) -> SearchSummary:
        results = tuple(self._result(study, stopped) for study in self.studies)
        timed = [(r.task.calls, r.seconds, r.default_seconds) for r in results if r.seconds]
        return SearchSummary(
            run=self.run_id,
            stopped=stopped,
            message=self._message(stopped, len(timed)),
            tasks=results,
            done=self.done,
            new=self.new,
            elapsed=self.elapsed,
            latency=sum(calls * seconds for calls, seconds, _ in timed if seconds),
            baseline=sum(calls * (default or seconds or 0.0) for calls, seconds, default in timed),
            failures=self._failures(),
        )

    def _message(self, stopped: Stopped, measured: int) -> str:
        kept = f"{self.done} measured candidates of {len(self.studies)} tasks are in the database"
        if stopped == "interrupted":
            return f"Interrupted: {kept}, and the same command continues from there."
        if stopped == "all_failed":
            why = next((m for s in self.studies for m in s.messages), "no message was given")
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self._failures().items()))
            return f"Stopped, since every candidate so far failed ({kinds}); the first: {why}"
        ends = {
            "budget": "The trials are used up",
            "time": "The time is used up",
            "converged": "Nothing more is to be gained",
        }
        return f"{ends[stopped]}: {kept}, {measured} tasks have a right schedule."


def _gain(study: TaskStudy) -> float:
    if study.best is None:
        return 0.0
    if study.default_seconds is None:
        return math.inf
    return study.default_seconds - study.best.seconds
