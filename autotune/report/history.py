"""What a database knows of how a model was tuned: its curve, its failures, its disturbances."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuning_db.database import TuningDatabase

POINTS = 400
"""Of a curve at most: more than a screen shows."""


@dataclass(frozen=True)
class History:
    """``curve`` holds (trials, seconds): the sum of calls x best first measurement over the tasks.

    A task counts with its first time, its default's as a rule, until it has a better one; tasks
    that were never measured right are left out. ``outcomes`` counts records by kind, ``causes``
    failures by kind and text, the most frequent first; ``disturbed`` counts those of ``known`` that
    are known only by a measurement that the machine disturbed; ``runs`` are id, start, trials and
    whether finished.
    """

    trials: int
    curve: tuple[tuple[int, float], ...]
    outcomes: dict[str, int]
    causes: tuple[tuple[str, str, int], ...]
    disturbed: int
    known: int
    runs: tuple[tuple[str, str, int, str], ...]


def history(database: TuningDatabase, model: str, target: str) -> History:
    """Of the model and target with those digests."""
    from tuning_db.drift import disturbed

    calls = {task.workload: task.calls for task in database.tasks(model, target)}
    records = [record for key in calls for record in database.records(key, target)]
    records.sort(key=lambda record: record.id or 0)
    outcomes = Counter(record.outcome for record in records)
    causes = Counter(
        (record.outcome, _cause(record.detail))
        for record in records
        if record.outcome not in ("measured", "invalid")
    )
    first = [record for record in records if not record.final]
    best: dict[str, float] = {}
    for record in first:
        if record.seconds is not None:
            best.setdefault(record.workload, record.seconds)
    total = sum(calls[key] * seconds for key, seconds in best.items())
    curve = [(1, total)] if best else []
    for trial, record in enumerate(first, 1):
        if record.seconds is not None and record.seconds < best[record.workload]:
            total -= calls[record.workload] * (best[record.workload] - record.seconds)
            best[record.workload] = record.seconds
            curve.append((trial, total))
    if curve:
        curve.append((len(first), total))
    step = -(-len(curve) // POINTS) or 1
    runs = tuple(
        (run.id, run.started, run.trials_done, "finished" if run.finished else "unfinished")
        for run in database.runs()
        if run.model == model and run.target == target
    )
    measured = {(record.workload, record.candidate) for record in records if record.seconds}
    return History(
        trials=len(first),
        curve=(*curve[:-1:step], *curve[-1:]),
        outcomes=dict(outcomes.most_common()),
        causes=tuple((kind, text, count) for (kind, text), count in causes.most_common(12)),
        disturbed=sum(row.workload in calls for row in disturbed(database, target)),
        known=len(measured),
        runs=runs,
    )


def _cause(detail: str) -> str:
    """What a record's detail says of a failure, without what is particular to one candidate."""
    told = json.loads(detail)
    lines = str(told.get("message", "")).strip().splitlines()
    parts = (str(told.get("stage", "")), lines[-1][:160] if lines else "")
    return ": ".join(part for part in parts if part)
