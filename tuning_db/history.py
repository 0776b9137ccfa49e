"""What a new search may learn from: records of other tasks and of other targets, without traces.

Also the cost models that learned from them, so that not every run has to learn it all again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuning_db.database import TuningDatabase
from tuning_db.rows import now

BEST_OF_TASK, OTHERS_OF_TASK = 16, 48
"""Records of each task that are looked at: its best, and some others, failures included."""


@dataclass(frozen=True)
class HistoryRow:
    """A first measurement; ``seconds`` is None where it failed."""

    workload: str
    space: str
    space_version: int
    parameters: str
    seconds: float | None


def history(database: TuningDatabase, target: str) -> list[HistoryRow]:
    """Records of every task on ``target`` (a digest): the best ones, and a fair draw of the rest.

    The same records in the same order, whatever the order in which they were written.
    """
    rows = database.rows(
        """SELECT workload, space, space_version, parameters, seconds FROM (
             SELECT workload, space, space_version, parameters, seconds, candidate,
                    ROW_NUMBER() OVER (PARTITION BY workload
                                       ORDER BY seconds IS NULL, seconds, candidate) AS place,
                    ROW_NUMBER() OVER (PARTITION BY workload ORDER BY candidate, run) AS drawn
             FROM records WHERE target = ? AND final = 0)
           WHERE place <= ? OR drawn <= ? ORDER BY workload, candidate, seconds""",
        (target, BEST_OF_TASK, OTHERS_OF_TASK),
    )
    return [HistoryRow(*row) for row in rows]


def workloads_of(database: TuningDatabase, target: str) -> list[str]:
    """Keys of the workloads that have records on ``target`` (a digest), in their order."""
    # Each is looked for in an index; a DISTINCT would walk through all records.
    sql = """SELECT key FROM workloads AS w WHERE EXISTS
             (SELECT 1 FROM records WHERE workload = w.key AND target = ?) ORDER BY key"""
    return [str(row[0]) for row in database.rows(sql, (target,))]


def first_measurements(database: TuningDatabase) -> int:
    """How many first measurements there are, of all tasks and targets."""
    return int(database.rows("SELECT COUNT(*) FROM records WHERE final = 0")[0][0])


def load_cost_model(database: TuningDatabase, name: str) -> tuple[int, bytes] | None:
    """The stored model of that name and how many records there were when it was made."""
    rows = database.rows("SELECT records, model FROM cost_models WHERE name = ?", (name,))
    return (int(rows[0][0]), bytes(rows[0][1])) if rows else None


def save_cost_model(database: TuningDatabase, name: str, records: int, model: bytes) -> None:
    """Store ``model``, in place of one of the same name."""
    with database.transaction():
        database.connection.execute(
            "INSERT INTO cost_models VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " records = excluded.records, time = excluded.time, model = excluded.model",
            (name, records, now(), model),
        )
