"""Disturbed records are measured again, and what they decided is decided again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.measure.base import Runner, TaskNotMeasurable
from autotune.search.contest import hold_finals
from autotune.search.drift import Drift, DriftLog
from autotune.search.progress import Progress
from autotune.search.recording import target_row, task_from, versions_text
from autotune.search.settings import SearchSettings
from autotune.search.space import candidate_of
from autotune.search.state import SearchState, TaskState
from autotune.search.study import TaskStudy
from autotune.search.telling import progress_of
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.drift import DISTURBED, DisturbedRecord, disturbed, drift_seconds


@dataclass(frozen=True)
class Verification:
    """What became of the disturbed records. Counts are of candidates, and of tasks.

    ``found`` were disturbed; ``repeated`` were measured again, the others not, for the reasons in
    ``skipped``; ``still`` were disturbed again. ``changed`` tasks have another winner now.
    """

    found: int
    repeated: int
    still: int
    skipped: tuple[str, ...]
    tasks: int
    changed: int
    drift: Drift
    interrupted: bool = False


def verify(
    database: TuningDatabase,
    target: Target,
    runner: Runner,
    *,
    above: float = DISTURBED,
    settings: SearchSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Verification:
    """Measure every candidate on ``target`` again whose latest record is disturbed.

    Disturbed means that the machine was ``above`` times slower than undisturbed. New records join
    the old ones, as a run of their own; then the finals of each task concerned are held again. An
    interruption ends it with everything measured kept. Raises what the runner and the database
    raise for faults of their own.
    """
    found = disturbed(database, target.digest, above)
    if not found:
        return Verification(0, 0, 0, (), 0, 0, Drift(0, 0, 1.0))
    by_task: dict[str, list[DisturbedRecord]] = {}
    for row in found:
        by_task.setdefault(row.workload, []).append(row)
    winners = {key: _winner(database, key, target) for key in by_task}
    skipped: list[str] = []
    tasks = []
    for key in by_task:
        stored = database.workload(key)
        assert stored is not None  # records refer to it
        try:
            tasks.append(task_from(stored))
        except ValueError as error:
            skipped.append(str(error))
    chosen = settings or SearchSettings(sampler="random")
    with database.transaction():
        database.register_target(target_row(target))
        noted = {"verify": above, "cache": chosen.cache}
        run = database.begin_run(target.digest, None, noted, json.loads(versions_text()))
    log = DriftLog(drift_seconds(database, target.digest))
    state = SearchState(target, chosen, run, [], log)
    told = progress or (lambda _: None)
    repeated, interrupted = 0, False
    try:
        for task in tasks:
            candidates = _candidates(database, by_task[task.workload.key])
            runner.forget(task)
            try:
                for measurement in runner.run(task, candidates):
                    database.add(state.record(task, measurement))
                    repeated += 1
                    state.new += 1
            except TaskNotMeasurable as error:
                skipped.append(str(error))
                continue
            state.tasks.append(_restored(task, target, database, chosen))
            told(progress_of(state, "search", state.tasks[-1]))
            # At once: after an interruption nothing would say that the old verdict is a bad one.
            hold_finals(
                state, runner, database, lambda each: told(progress_of(state, "finals", each))
            )
    except KeyboardInterrupt:
        interrupted = True
    database.finish_run(run)
    before = {(row.workload, row.candidate) for row in found}
    after = disturbed(database, target.digest, above)
    return Verification(
        found=len(before),
        repeated=repeated,
        still=sum((row.workload, row.candidate) in before for row in after),
        skipped=tuple(skipped),
        tasks=len(tasks),
        changed=sum(_winner(database, key, target) != old for key, old in winners.items()),
        drift=log.drift,
        interrupted=interrupted,
    )


def _winner(database: TuningDatabase, workload: str, target: Target) -> str | None:
    record = database.best(workload, target.digest)
    return record.candidate if record is not None else None


def _candidates(database: TuningDatabase, rows: Sequence[DisturbedRecord]) -> list[Candidate]:
    found = {}
    for row in rows:
        record = database.record(row.id)
        if record is not None:  # its first and its final one may both be disturbed
            made = candidate_of(record.space, record.space_version, record.parameters)
            found[record.candidate] = made
    return list(found.values())


def _restored(
    task: Task, target: Target, database: TuningDatabase, settings: SearchSettings
) -> TaskState:
    """The task with all that is known of it, but for the verdict that is to be found anew."""
    study = TaskStudy(task, target, sampler="random", model=None, seed=settings.seed)
    state = TaskState(study)
    state.restore(database)
    return replace(state, verdict=None)
