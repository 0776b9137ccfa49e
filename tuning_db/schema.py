"""Tables, indexes and views, as migrations: each step and its record are one transaction.

A released step is never edited; a change is a new step at the end. ``docs/database.md`` describes
the result for people who browse a file with sqlite-utils or datasette.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlite_utils.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x41545442
"""Marks a SQLite file as ours (``PRAGMA application_id``): "ATTB"."""

migrations = Migrations("tuning_db")

# The id of the best record of a task, for `{workload}` and `{target}` (SQL expressions).
# Re-measurements outrank first measurements, since first ones are the lucky minimum of many; a
# candidate that was ever wrong, or failed when it was measured again, is out whatever its time.
# The index `records_best` holds the rows in this order, so that the first one is found without
# sorting; run and round only separate equal times of one candidate.
BEST = """SELECT b.id FROM records AS b INDEXED BY records_best
 WHERE b.workload = {workload} AND b.target = {target} AND b.outcome = 'measured'
   AND NOT EXISTS (SELECT 1 FROM records AS x
     WHERE x.workload = b.workload AND x.target = b.target AND x.candidate = b.candidate
       AND x.outcome <> 'measured' AND (x.final = 1 OR x.outcome = 'wrong_result'))
 ORDER BY b.final DESC, b.seconds, b.candidate, b.run, b.round LIMIT 1"""

TABLES = (
    """CREATE TABLE targets (
        digest TEXT PRIMARY KEY NOT NULL,
        model TEXT NOT NULL,
        description TEXT NOT NULL CHECK (json_valid(description))
    ) STRICT""",
    """CREATE TABLE workloads (
        key TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        function TEXT NOT NULL,
        description TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE models (
        digest TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE model_tasks (
        model TEXT NOT NULL REFERENCES models(digest),
        target TEXT NOT NULL REFERENCES targets(digest),
        workload TEXT NOT NULL REFERENCES workloads(key),
        calls INTEGER NOT NULL CHECK (calls > 0),
        flops REAL NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (model, target, workload)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY NOT NULL,
        model TEXT REFERENCES models(digest),
        target TEXT NOT NULL REFERENCES targets(digest),
        started TEXT NOT NULL,
        finished TEXT,
        settings TEXT NOT NULL CHECK (json_valid(settings)),
        versions TEXT NOT NULL CHECK (json_valid(versions)),
        trials_done INTEGER NOT NULL DEFAULT 0 CHECK (trials_done >= 0)
    ) STRICT""",
    # A trace is a few KB of JSON and every re-measurement repeats it: kept once, zlib-compressed.
    """CREATE TABLE traces (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        text BLOB NOT NULL
    ) STRICT""",
    # `round` is 0 for a first measurement and counts the re-measurements of one run from 1.
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        workload TEXT NOT NULL REFERENCES workloads(key),
        target TEXT NOT NULL REFERENCES targets(digest),
        space TEXT NOT NULL,
        space_version INTEGER NOT NULL,
        parameters TEXT NOT NULL CHECK (json_valid(parameters)),
        candidate TEXT NOT NULL,
        outcome TEXT NOT NULL,
        seconds REAL,
        samples BLOB,
        error REAL,
        tolerance REAL,
        detail TEXT NOT NULL CHECK (json_valid(detail)),
        trace INTEGER REFERENCES traces(id),
        versions TEXT NOT NULL CHECK (json_valid(versions)),
        run TEXT NOT NULL REFERENCES runs(id),
        time TEXT NOT NULL,
        round INTEGER NOT NULL DEFAULT 0 CHECK (round >= 0),
        final INTEGER GENERATED ALWAYS AS (round > 0) VIRTUAL,
        CHECK ((outcome = 'measured') = (seconds IS NOT NULL)),
        CHECK (seconds > 0),
        UNIQUE (workload, target, candidate, run, round)
    ) STRICT""",
    """CREATE INDEX records_best
        ON records (workload, target, outcome, final DESC, seconds, candidate)""",
    "CREATE INDEX records_run ON records (run)",
    "CREATE INDEX records_trace ON records (trace)",
    "CREATE INDEX model_tasks_workload ON model_tasks (workload)",
)

VIEWS = (
    f"""CREATE VIEW best_per_task AS
    SELECT w.name AS workload_name, t.model AS target_model, r.seconds * 1e6 AS microseconds,
           r.space, r.parameters, r.final, task.candidates, task.failed, r.time,
           r.id AS record, r.workload, r.target, r.run
    FROM (SELECT workload, target, COUNT(DISTINCT candidate) AS candidates,
                 SUM(outcome <> 'measured') AS failed
          FROM records GROUP BY workload, target) AS task
    JOIN workloads AS w ON w.key = task.workload
    JOIN targets AS t ON t.digest = task.target
    JOIN records AS r ON r.id = ({BEST.format(workload="task.workload", target="task.target")})
    ORDER BY r.seconds DESC""",
    """CREATE VIEW tuning_progress AS
    SELECT r.run, w.name AS workload_name,
           ROW_NUMBER() OVER (PARTITION BY r.run, r.workload ORDER BY r.id) AS trial,
           r.outcome, r.seconds * 1e6 AS microseconds,
           MIN(r.seconds) OVER (PARTITION BY r.run, r.workload ORDER BY r.id) * 1e6
               AS best_microseconds,
           r.space, r.time, r.id AS record, r.workload, r.target
    FROM records AS r JOIN workloads AS w ON w.key = r.workload
    WHERE r.final = 0""",
    """CREATE VIEW failures_by_cause AS
    SELECT t.model AS target_model, r.outcome, json_extract(r.detail, '$.stage') AS stage,
           r.space, COUNT(*) AS records, COUNT(DISTINCT r.workload) AS workloads,
           json_extract(r.detail, '$.message') AS example, MAX(r.id) AS record
    FROM records AS r JOIN targets AS t ON t.digest = r.target
    WHERE r.outcome <> 'measured'
    GROUP BY r.target, r.outcome, stage, r.space
    ORDER BY records DESC""",
)


VERIFIED = """CREATE VIEW verified AS
    SELECT w.name AS workload_name, t.model AS target_model,
           json_extract(r.detail, '$.verifies.seconds') * 1e6 AS was_microseconds,
           r.seconds * 1e6 AS microseconds, r.outcome,
           json_extract(r.detail, '$.verifies.holds') AS holds,
           r.space, r.time, r.id AS record, r.workload, r.target, r.candidate, r.run
    FROM records AS r JOIN workloads AS w ON w.key = r.workload
    JOIN targets AS t ON t.digest = r.target
    WHERE json_type(r.detail, '$.verifies') = 'object'
    ORDER BY holds, r.id DESC"""


# What a cost model learned from so many records: made again when there are many more.
COST_MODELS = """CREATE TABLE cost_models (
        name TEXT PRIMARY KEY NOT NULL,
        records INTEGER NOT NULL CHECK (records >= 0),
        time TEXT NOT NULL,
        model BLOB NOT NULL
    ) STRICT"""


@migrations(name="0001_tables")
def _tables(db: Database) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in TABLES:
        db.execute(statement)


@migrations(name="0002_views")
def _views(db: Database) -> None:
    for statement in VIEWS:
        db.execute(statement)


@migrations(name="0003_verified")
def _verified(db: Database) -> None:
    db.execute(VERIFIED)


@migrations(name="0004_cost_models")
def _cost_models(db: Database) -> None:
    db.execute(COST_MODELS)
