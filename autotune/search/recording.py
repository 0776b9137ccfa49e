"""From tasks and measurements to the rows of the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache

from autotune.measure import wire
from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured, WrongResult
from autotune.measure.timing import ESTIMATOR, FIRST_EXECUTION, uncertainty
from autotune.search.space import candidate_of, parameters_text
from autotune.versions import installed
from search_spaces.task import Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.records import ModelRow, Record, TargetRow, TaskRow, WorkloadRow

_STORED_APART = {"seconds", "samples", "error", "tolerance"}
_PACKAGES = {"autotune": "autotune", "tvm": "apache-tvm"}


@cache
def versions_text() -> str:
    """The versions that a measurement depends on, as JSON; those not installed are left out."""
    return json.dumps(installed(_PACKAGES), sort_keys=True)


def workload_row(task: Task) -> WorkloadRow:
    """The workload, with everything but its function described as JSON."""
    described = asdict(task.workload)
    del described["function"]
    described.update(flops=task.flops, bytes=task.bytes)
    work = task.workload
    return WorkloadRow(work.key, work.name, work.function, json.dumps(described, sort_keys=True))


def task_from(row: WorkloadRow, calls: int = 1) -> Task:
    """The task that ``row`` was made of. Raises ``ValueError`` where it was not made by us."""
    try:
        told = json.loads(row.description)
        counts = {name: told.pop(name) for name in ("flops", "bytes")}
        return wire.task_from(
            {"workload": {**told, "function": row.function}, "calls": calls, **counts}
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"workload {row.key} is not described as ours are") from error


def target_row(target: Target) -> TargetRow:
    """The target, with all of its fields as JSON."""
    return TargetRow(target.digest, target.model, json.dumps(asdict(target), sort_keys=True))


def register_model(
    database: TuningDatabase, model: ModelRow, target: Target, tasks: Iterable[Task]
) -> None:
    """Note which tasks ``model`` has on ``target``; both, and the workloads, are registered."""
    rows = [TaskRow(t.workload.key, t.calls, t.flops, t.bytes) for t in tasks]
    database.register_model(model.digest, model.name, target.digest, rows)


def record_of(
    task: Task,
    target: Target,
    measurement: Measurement,
    *,
    run: str,
    final: bool = False,
    extra: Mapping[str, object] | None = None,
) -> Record:
    """What is stored of one measurement.

    ``detail`` holds how the time was estimated and how sure it is, the stages' seconds, the fixed
    kernel's (``tuning_db.drift``), the cause of a failure, and ``extra`` (JSON-able).
    """
    outcome, candidate = measurement.outcome, measurement.candidate
    detail = {name: value for name, value in asdict(outcome).items() if name not in _STORED_APART}
    detail["stages"] = dict(measurement.seconds)
    if isinstance(outcome, Measured):
        how = ESTIMATOR if len(outcome.samples) > 1 else FIRST_EXECUTION
        detail |= {"estimator": how, "uncertainty": uncertainty(outcome.samples)}
    if measurement.drift_seconds is not None:
        detail["drift_seconds"] = measurement.drift_seconds
    if measurement.module:
        detail["module"] = measurement.module
    if measurement.same_as:
        detail["same_as"] = measurement.same_as
    detail.update(extra or {})
    judged = outcome if isinstance(outcome, Measured | WrongResult) else None
    return Record(
        workload=task.workload.key,
        target=target.digest,
        space=candidate.space,
        space_version=candidate.version,
        parameters=parameters_text(candidate),
        candidate=candidate.key,
        outcome=outcome.kind,
        seconds=outcome.seconds if isinstance(outcome, Measured) else None,
        samples=outcome.samples if isinstance(outcome, Measured) else (),
        error=judged.error if judged else None,
        tolerance=judged.tolerance if judged else None,
        detail=json.dumps(detail, sort_keys=True),
        trace=measurement.trace,
        versions=versions_text(),
        run=run,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        final=final,
    )


def measurement_of(record: Record) -> Measurement | None:
    """The measurement that ``record`` was made of; None where it tells of a failure."""
    if record.outcome != Measured.kind or record.seconds is None:
        return None
    detail = json.loads(record.detail)
    outcome = Measured(
        record.seconds, tuple(record.samples), record.error or 0.0, record.tolerance or 0.0
    )
    return Measurement(
        candidate_of(record.space, record.space_version, record.parameters),
        outcome,
        record.trace,
        detail.get("stages", {}),
        detail.get("drift_seconds"),
        detail.get("module", ""),
        detail.get("same_as", ""),
    )
