"""Which records were taken while the machine was slower than it can be.

Each record's detail may hold "drift_seconds": what a fixed kernel took just before and after (the
slower of both). Its best times on a target say how fast the machine is when nothing disturbs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuning_db.database import TuningDatabase

DISTURBED = 1.2
"""A record is disturbed if the fixed kernel took so many times its undisturbed time."""

SLOWER = 1.1
"""A record no longer holds if its candidate takes so many times as long now."""

_UNDISTURBED = 20
"""One in so many times may be luckier than what counts as undisturbed."""


@dataclass(frozen=True)
class DisturbedRecord:
    """The latest record of a candidate; ``drift`` is how many times slower the machine was."""

    id: int
    workload: str
    candidate: str
    drift: float


def undisturbed(ordered: Sequence[float]) -> float:
    """The undisturbed time out of all seen, fastest first and at least one: their 5th percentile.

    Not the very fastest: a machine that boosts for a moment would make all else look disturbed.
    """
    return ordered[len(ordered) // _UNDISTURBED]


def drift_seconds(database: TuningDatabase, target: str) -> list[float]:
    """All times of the fixed kernel on ``target`` (a digest), fastest first."""
    rows = database.rows(
        "SELECT json_extract(detail, '$.drift_seconds') AS drift FROM records"
        " WHERE target = ? AND drift > 0 ORDER BY drift",
        (target,),
    )
    return [float(row[0]) for row in rows]


def disturbed(
    database: TuningDatabase, target: str, above: float = DISTURBED
) -> list[DisturbedRecord]:
    """The right candidates on ``target`` that are known by a disturbed record, worst first.

    Of each candidate the latest first measurement counts, of each task the latest final one.
    ``above`` is the drift from which on a record counts as disturbed.
    """
    times = drift_seconds(database, target)
    if not times:
        return []
    base = undisturbed(times)
    rows = database.rows(
        """SELECT id, workload, candidate, drift / ? FROM (
             SELECT id, workload, candidate, outcome,
                    json_extract(detail, '$.drift_seconds') AS drift,
                    ROW_NUMBER() OVER (
                        PARTITION BY workload, CASE final WHEN 1 THEN '' ELSE candidate END
                        ORDER BY id DESC) AS latest
             FROM records WHERE target = ?)
           WHERE latest = 1 AND outcome = 'measured' AND drift > ?
           ORDER BY drift DESC, id""",
        (base, target, base * above),
    )
    return [DisturbedRecord(*row) for row in rows]
