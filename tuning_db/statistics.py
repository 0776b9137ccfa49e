"""What a database holds, in numbers."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tuning_db.schema import BEST


@dataclass(frozen=True)
class ModelStats:
    """A model on a target: ``seconds`` is the sum of calls × best over its ``tuned`` tasks."""

    digest: str
    name: str
    target: str
    tasks: int
    tuned: int
    calls: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class TargetStats:
    """A target: how many workloads and records it has."""

    digest: str
    model: str
    workloads: int
    records: int


@dataclass(frozen=True)
class Stats:
    """``bytes`` is the size of the file with its log; ``outcomes`` counts records by outcome."""

    path: str
    bytes: int
    records: int
    finals: int
    workloads: int
    runs: int
    unfinished_runs: int
    outcomes: dict[str, int]
    targets: tuple[TargetStats, ...]
    models: tuple[ModelStats, ...]


def collect(path: Path, connection: sqlite3.Connection) -> Stats:
    """Read everything in one snapshot; no transaction may be open."""
    connection.execute("BEGIN")
    try:
        return _collect(path, connection)
    finally:
        connection.execute("ROLLBACK")


def _collect(path: Path, connection: sqlite3.Connection) -> Stats:
    def one(sql: str) -> int:
        return int(connection.execute(sql).fetchone()[0])

    log = path.with_name(path.name + "-wal")
    outcomes = dict(
        connection.execute("SELECT outcome, COUNT(*) FROM records GROUP BY outcome ORDER BY 1")
    )
    targets = connection.execute(
        "SELECT t.digest, t.model, COUNT(DISTINCT r.workload), COUNT(r.id) FROM targets AS t"
        " LEFT JOIN records AS r ON r.target = t.digest GROUP BY t.digest ORDER BY t.digest"
    )
    best = BEST.format(workload="k.workload", target="k.target")
    models = connection.execute(
        "SELECT m.digest, m.name, k.target, COUNT(*), COUNT(b.seconds), SUM(k.calls),"
        " SUM(k.calls * k.flops), COALESCE(SUM(k.calls * b.seconds), 0.0)"
        " FROM model_tasks AS k JOIN models AS m ON m.digest = k.model"
        f" LEFT JOIN records AS b ON b.id = ({best})"
        " GROUP BY m.digest, k.target ORDER BY m.name, m.digest, k.target"
    )
    return Stats(
        path=str(path),
        bytes=path.stat().st_size + (log.stat().st_size if log.exists() else 0),
        records=sum(outcomes.values()),
        finals=one("SELECT COUNT(*) FROM records WHERE final = 1"),
        workloads=one("SELECT COUNT(*) FROM workloads"),
        runs=one("SELECT COUNT(*) FROM runs"),
        unfinished_runs=one("SELECT COUNT(*) FROM runs WHERE finished IS NULL"),
        outcomes=outcomes,
        targets=tuple(TargetStats(*row) for row in targets),
        models=tuple(ModelStats(*row) for row in models),
    )
