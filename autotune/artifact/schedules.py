"""Which schedule each task gets, and the function it makes: never without a way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.artifact.manifest import ChosenSchedule, TaskEntry
from autotune.errors import ArtifactError
from autotune.graph.model import FusedModel
from search_spaces.registry import matching
from search_spaces.scheduling import load_function, replay, schedule
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.records import Record


def chosen_from(database: TuningDatabase, fused: FusedModel) -> dict[str, ChosenSchedule]:
    """The best record of each task of ``fused`` on its target, by workload key.

    Tasks without a right record are left out. Records of other targets never answer.
    """
    found: dict[str, ChosenSchedule] = {}
    for task in fused.tasks:
        record = database.best(task.workload.key, fused.target.digest)
        if record is not None and record.trace:
            found[task.workload.key] = _chosen(record)
    return found


def named(
    tasks: Iterable[Mapping[str, Any]],
    look_up: Callable[[Mapping[str, Any]], ChosenSchedule | None],
    source: str | Path | None,
) -> dict[str, ChosenSchedule]:
    """What ``tasks`` of a manifest (its JSON) were made from, by workload key.

    ``look_up`` finds it in ``source`` (None: there is none). Raises ``ArtifactError`` where it is
    not there.
    """
    found = {}
    for task in tasks:
        if task["source"] == "record":
            chosen = look_up(task)
            if chosen is None or not _names(task, chosen):
                raise _not_there(task, source)
            found[task["workload"]] = chosen
    return found


def record_named(
    database: TuningDatabase, target: Target, task: Mapping[str, Any]
) -> ChosenSchedule | None:
    """The record that ``task`` of a manifest names, whatever is best by now."""
    records = database.records(task["workload"], target.digest, run=task["run"])
    return next((chosen for chosen in map(_chosen, records) if _names(task, chosen)), None)


def _names(task: Mapping[str, Any], chosen: ChosenSchedule) -> bool:
    return all(task[name] == getattr(chosen, name) for name in ("candidate", "run", "time"))


def _not_there(task: Mapping[str, Any], source: str | Path | None) -> ArtifactError:
    wanted = f"candidate {task['candidate'][:12]} of run {task['run']}"
    if source is None:
        return ArtifactError(
            f"{task['name']} was made from {wanted}: name the database with --db, or the lock "
            "file with --lock"
        )
    return ArtifactError(
        f"{source} does not hold what {task['name']} was made from ({wanted}): name the database "
        "or lock file that it came from"
    )


def _chosen(record: Record) -> ChosenSchedule:
    return ChosenSchedule(
        trace=record.trace,
        space=record.space,
        version=record.space_version,
        parameters=json.loads(record.parameters),
        candidate=record.candidate,
        run=record.run,
        time=record.time,
        seconds=record.seconds,
    )


def scheduled(
    task: Task, target: Target, chosen: ChosenSchedule | None, refused: Mapping[str, str]
) -> tuple[Any, TaskEntry]:
    """The PrimFunc of ``task`` as it is compiled, and how it came about.

    Tries the record, then the default of each space that matches, most specific first, then the
    function as it is. ``refused`` holds what must not be tried, by space name ("record" for the
    record, "" for nothing), with the reason.
    """
    reasons: list[str] = []
    work = task.workload

    def entry(source: str, **fields: Any) -> TaskEntry:
        return TaskEntry(
            work.key,
            work.name,
            task.calls,
            source,
            note="; ".join(reasons),
            arguments=tuple(map(str, work.arguments)),
            flops=task.flops,
            bytes=task.bytes,
            **fields,
        )

    if chosen is not None:
        if "record" in refused:
            reasons.append(f"{chosen.origin} {refused['record']}")
        else:
            try:
                module = _fitting(task, replay(task, target, chosen.trace).module)
            except Exception as error:  # TVM raises anything; a trace may not fit this version
                reasons.append(f"{chosen.origin} cannot be replayed: {_brief(error)}")
            else:
                told = asdict(chosen)
                del told["trace"]
                return module["main"], entry("record", **told)
    for space in matching(task, target):
        if space.name in refused:
            reasons.append(f"{space.name}: {refused[space.name]}")
            continue
        try:
            parameters = space.default(task, target)
            candidate = Candidate(space.name, space.version, parameters)
            module = _fitting(task, schedule(task, target, candidate).module)
        except Exception as error:  # a space may be a plugin, and TVM raises anything
            reasons.append(f"{space.name} failed: {_brief(error)}")
        else:
            return module["main"], entry(
                "default", space=space.name, version=space.version, parameters=parameters
            )
    if not reasons:
        reasons.append("no search space matches")
    return load_function(task)["main"], entry("unscheduled")


def _fitting(task: Task, module: Any) -> Any:
    """``module``, if its function still takes what the model passes; raises ``ValueError``."""
    found = tuple(
        (tuple(int(extent) for extent in p.shape), str(p.dtype)) for p in module["main"].params
    )
    if found != tuple((t.shape, t.dtype) for t in task.workload.arguments):
        raise ValueError("the schedule changes the arguments of the function")
    return module


def _brief(error: Exception) -> str:
    """The last line of an error's text: TVM puts a whole function before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200] if lines else ''}"
