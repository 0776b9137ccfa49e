"""Records are measured again, and what they decided is decided again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
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
from tuning_db.drift import DISTURBED, SLOWER, disturbed, drift_seconds
from tuning_db.records import Record


@dataclass(frozen=True)
class Broken:
    """A record that no longer holds: its candidate takes ``seconds`` now, or ended otherwise.

    ``record`` is its id; ``was`` are the seconds it says.
    """

    record: int
    workload: str
    was: float
    outcome: str
    seconds: float | None


@dataclass(frozen=True)
class Verification:
    """What became of the records. Counts are of candidates, and of tasks.

    ``found`` were to be measured again; ``repeated`` were, the others not, for the reasons in
    ``skipped``; ``still`` were measured on a disturbed machine, so that nothing is known of them.
    ``broken`` no longer hold. ``changed`` tasks have another winner now.
    """

    found: int
    repeated: int
    still: int
    broken: tuple[Broken, ...]
    skipped: tuple[str, ...]
    tasks: int
    changed: int
    drift: Drift
    interrupted: bool = False


def verify(
    database: TuningDatabase,
    target: Target,
    runner: Runner,
    records: Sequence[Record] | None = None,
    *,
    above: float = DISTURBED,
    slower: float = SLOWER,
    settings: SearchSettings | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Verification:
    """Measure the candidates of ``records``, on ``target``, again.

    Without ``records`` that is every candidate whose latest record is disturbed: the machine was
    ``above`` times slower than undisturbed. New records join the old ones, as a run of their own,
    and say whether the old one holds: a candidate that fails, or takes more than ``slower`` times
    as long on an undisturbed machine, does not. Then the finals of each task concerned are held
    again. An interruption ends it with everything measured kept. Raises what the runner and the
    database raise for faults of their own.
    """
    if records is None:
        found = [database.record(row.id) for row in disturbed(database, target.digest, above)]
        records = [record for record in found if record is not None]
    by_task: dict[str, dict[str, Record]] = {}
    for record in records:
        # Its first and its final one may both be meant: the later one counts.
        by_task.setdefault(record.workload, {})[record.candidate] = record
    if not by_task:
        return Verification(0, 0, 0, (), (), 0, 0, Drift(0, 0, 1.0))
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
    repeated, still, interrupted = 0, 0, False
    broken: list[Broken] = []
    try:
        for task in tasks:
            old = by_task[task.workload.key]
            runner.forget(task)
            try:
                for measurement in runner.run(task, _candidates(old.values())):
                    was = old[measurement.candidate.key]
                    new = state.record(task, measurement)
                    holds = _holds(was, new, above, slower)
                    database.add(_judged(new, was, holds))
                    repeated += 1
                    still += holds is None
                    state.new += 1
                    if holds is False:
                        broken.append(_broken(was, task.workload.name, new))
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
    return Verification(
        found=sum(map(len, by_task.values())),
        repeated=repeated,
        still=still,
        broken=tuple(broken),
        skipped=tuple(skipped),
        tasks=len(tasks),
        changed=sum(_winner(database, key, target) != old for key, old in winners.items()),
        drift=log.drift,
        interrupted=interrupted,
    )


def _holds(was: Record, new: Record, above: float, slower: float) -> bool | None:
    """Whether ``was`` still says the truth; None where the machine was too disturbed to tell."""
    if was.seconds is None or new.seconds is None:
        return was.outcome == new.outcome  # a failure holds if it fails again
    if json.loads(new.detail).get("drift", 1.0) > above:
        return None
    return new.seconds <= slower * was.seconds


def _judged(new: Record, was: Record, holds: bool | None) -> Record:
    told = {"seconds": was.seconds, "run": was.run, "time": was.time, "holds": holds}
    detail = json.loads(new.detail) | {"verifies": told}
    return replace(new, detail=json.dumps(detail, sort_keys=True))


def _broken(was: Record, workload: str, new: Record) -> Broken:
    return Broken(was.id or 0, workload, was.seconds or 0.0, new.outcome, new.seconds)


def _winner(database: TuningDatabase, workload: str, target: Target) -> str | None:
    record = database.best(workload, target.digest)
    return record.candidate if record is not None else None


def _candidates(records: Iterable[Record]) -> list[Candidate]:
    return [candidate_of(r.space, r.space_version, r.parameters) for r in records]


def _restored(
    task: Task, target: Target, database: TuningDatabase, settings: SearchSettings
) -> TaskState:
    """The task with all that is known of it, but for the verdict that is to be found anew."""
    study = TaskStudy(task, target, sampler="random", model=None, seed=settings.seed)
    state = TaskState(study)
    state.restore(database)
    return replace(state, verdict=None)
