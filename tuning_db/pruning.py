"""Keeping the leaders of each task and dropping the rest."""

from __future__ import annotations

from dataclasses import dataclass

from tuning_db.database import TuningDatabase
from tuning_db.errors import explained

# Candidates of each task in the order of ``TuningDatabase.best``: re-measured ones first, and
# none that was ever wrong or failed when measured again.
LEADERS = """SELECT workload, target, candidate FROM (
   SELECT workload, target, candidate, ROW_NUMBER() OVER (
     PARTITION BY workload, target
     ORDER BY MAX(final) DESC,
       CASE MAX(final) WHEN 1 THEN MIN(seconds) FILTER (WHERE final = 1) ELSE MIN(seconds) END,
       candidate) AS place
   FROM records AS r WHERE outcome = 'measured'
     AND NOT EXISTS (SELECT 1 FROM records AS x
       WHERE x.workload = r.workload AND x.target = r.target AND x.candidate = r.candidate
         AND x.outcome <> 'measured' AND (x.final = 1 OR x.outcome = 'wrong_result'))
   GROUP BY workload, target, candidate) WHERE place <= ?"""


@dataclass(frozen=True)
class Pruned:
    """How many records went and stayed, and the size of the file (bytes) before and after."""

    dropped: int
    kept: int
    bytes_before: int
    bytes_after: int


def prune(database: TuningDatabase, keep: int, *, dry_run: bool = False) -> Pruned:
    """Keep all records of the ``keep`` best candidates of each task, drop the others.

    Failures go too, so that what is dropped may be measured again by a later tuning. The best of
    every task stays the same. ``dry_run`` only counts. Raises ``ValueError`` if keep < 1.
    """
    if keep < 1:
        raise ValueError("at least one candidate of each task has to be kept")
    connection = database.connection
    before = database.stats().bytes
    others = f"FROM records WHERE (workload, target, candidate) NOT IN ({LEADERS})"
    if dry_run:
        with explained(database.path):
            dropped = connection.execute(f"SELECT COUNT(*) {others}", (keep,)).fetchone()[0]
        return Pruned(dropped, database.count() - dropped, before, before)
    with database.transaction():
        dropped = connection.execute(f"DELETE {others}", (keep,)).rowcount
        connection.execute(
            "DELETE FROM traces WHERE NOT EXISTS"
            " (SELECT 1 FROM records WHERE records.trace = traces.id)"
        )
    with explained(database.path):
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Pruned(dropped, database.count(), before, database.stats().bytes)
