"""The tuning database: what was measured, kept by one commit a measurement."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tuning_db import statistics
from tuning_db.errors import DuplicateRecord, InvalidRow, UnknownReference, explained
from tuning_db.opening import connect
from tuning_db.records import ModelRow, Record, RunRow, TargetRow, TaskRow, WorkloadRow
from tuning_db.rows import SELECT, checked, is_object, now, pack_samples, pack_trace, to_record
from tuning_db.schema import BEST

CHUNK = 500
"""Records read by one statement: short ones, so that no reader holds back the log."""

# Plain sqlite3 and not sqlite-utils from here on: its table methods inspect the schema at each
# call (`get` 0.21 ms against 0.05 ms for `record`, one `insert` 0.22 ms against 0.18 ms for the
# four statements of `add`, all without the sync), and the best record is asked for in loops.


class TuningDatabase:
    """One open database file. A context manager; belongs to the thread and process that opened it.

    Several processes may have the same file open and write at the same time. Every method raises
    a ``DatabaseFault`` where the file cannot be used.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    def open(
        cls,
        path: str | Path,
        create: bool = True,
        read_only: bool = False,
        *,
        timeout: float = 30.0,
    ) -> TuningDatabase:
        """Open the file at ``path``; make it if there is none and ``create``.

        An older schema is upgraded unless ``read_only``. ``timeout`` is how many seconds a write
        waits for other processes. Raises a ``DatabaseFault`` by cause, with the file unchanged.
        """
        path = Path(path)
        connection = connect(path, create=create, read_only=read_only, timeout=timeout)
        return cls(path, connection)

    def close(self) -> None:
        """Close the file; safe to call again."""
        with explained(self.path):
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written at once or not at all; joins a transaction already open."""
        if self.connection.in_transaction:
            yield
            return
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; its faults are the database's."""
        with explained(self.path):
            return self.connection.execute(sql, tuple(values)).fetchall()

    # What records speak of

    def register(self, workload: WorkloadRow) -> None:
        """Store a workload; the first one of a key stays (equal keys may differ in names)."""
        with self.transaction():
            self.connection.execute(
                "INSERT OR IGNORE INTO workloads VALUES (?, ?, ?, ?)",
                (workload.key, workload.name, workload.function, workload.description),
            )

    def register_target(self, target: TargetRow) -> None:
        """Store a target; one of the same digest stays. Raises ``InvalidRow``."""
        if not is_object(target.description):
            raise InvalidRow("the description of a target is not the JSON text of an object")
        with self.transaction():
            self.connection.execute(
                "INSERT OR IGNORE INTO targets VALUES (?, ?, ?)",
                (target.digest, target.model, target.description),
            )

    def register_model(
        self, digest: str, name: str, target: str, tasks: Iterable[TaskRow] = ()
    ) -> None:
        """Store a model and what it calls on ``target`` (a digest), replacing what was said before.

        The target and the workloads must be registered; raises ``UnknownReference``.
        """
        with self.transaction():
            self.connection.execute(
                "INSERT INTO models VALUES (?, ?) ON CONFLICT DO UPDATE SET name = excluded.name",
                (digest, name),
            )
            self.connection.execute(
                "DELETE FROM model_tasks WHERE model = ? AND target = ?", (digest, target)
            )
            for task in tasks:
                self._insert(
                    "INSERT INTO model_tasks VALUES (?, ?, ?, ?, ?, ?)",
                    (digest, target, task.workload, task.calls, task.flops, task.bytes),
                    f"a task of model {name}",
                )

    def begin_run(
        self,
        target: str,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        versions: Mapping[str, Any] | None = None,
    ) -> str:
        """Open a tuning run on ``target`` (and of ``model``: digests) and return its id.

        Ids sort by time and are unique across machines; ``settings`` and ``versions`` must be
        JSON-able.
        """
        run = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}"
        row = (run, model, target, now(), None, json.dumps(dict(settings or {})))
        with self.transaction():
            self._insert(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (*row, json.dumps(dict(versions or {}))),
                "the run",
            )
        return run

    def finish_run(self, run: str) -> None:
        """Note that ``run`` came to its end. Raises ``UnknownReference``."""
        with self.transaction():
            cursor = self.connection.execute(
                "UPDATE runs SET finished = ? WHERE id = ?", (now(), run)
            )
            if cursor.rowcount == 0:
                raise UnknownReference(f"{self.path} has no run {run}: begin it first")

    # Records

    def add(self, record: Record) -> Record:
        """Store ``record``, durably when this returns, and return it with its id.

        The workload, target and run must be registered. A first measurement (``final`` False)
        is taken once for each candidate of a task in a run; re-measurements as often as there
        are. Raises ``InvalidRow``, ``UnknownReference`` or ``DuplicateRecord``.
        """
        record = checked(record)
        with self.transaction():
            turn = 0
            if record.final:
                turn = self.connection.execute(
                    "SELECT COALESCE(MAX(round), 0) + 1 FROM records"
                    " WHERE workload = ? AND target = ? AND candidate = ? AND run = ?",
                    (record.workload, record.target, record.candidate, record.run),
                ).fetchone()[0]
            number = self.insert(record, turn)
            if not record.final:
                self.connection.execute(
                    "UPDATE runs SET trials_done = trials_done + 1 WHERE id = ?", (record.run,)
                )
        return replace(record, id=number)

    def insert(self, record: Record, turn: int) -> int:
        """Write one row as it is, inside a transaction; ``turn`` 0 is a first measurement."""
        trace = None
        if record.trace:
            digest, packed = pack_trace(record.trace)
            self.connection.execute(
                "INSERT OR IGNORE INTO traces (digest, text) VALUES (?, ?)", (digest, packed)
            )
            trace = self.connection.execute(
                "SELECT id FROM traces WHERE digest = ?", (digest,)
            ).fetchone()[0]
        key = (record.workload, record.target, record.space, record.space_version)
        choice = (record.parameters, record.candidate, record.outcome, record.seconds)
        proof = (pack_samples(record.samples), record.error, record.tolerance, record.detail)
        source = (trace, record.versions, record.run, record.time, turn)
        return self._insert(
            "INSERT INTO records (workload, target, space, space_version, parameters, candidate,"
            " outcome, seconds, samples, error, tolerance, detail, trace, versions, run, time,"
            " round) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, *choice, *proof, *source),
            f"the record of candidate {record.candidate}",
        )

    def _insert(self, sql: str, values: tuple[Any, ...], what: str) -> int:
        try:
            return self.connection.execute(sql, values).lastrowid or 0
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
                raise UnknownReference(
                    f"{what} names a workload, target, model or run that {self.path} does not "
                    "hold: register it first"
                ) from error
            if error.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE":
                raise DuplicateRecord(f"{what} is in {self.path} already") from error
            raise InvalidRow(f"{what} cannot be stored: {error}") from error

    def records(
        self,
        workload: str | None = None,
        target: str | None = None,
        *,
        outcome: str | None = None,
        run: str | None = None,
        final: bool | None = None,
        last: int | None = None,
    ) -> Iterator[Record]:
        """Yield the records that match, or the ``last`` so many, in the order they were written.

        Those that are there when the first one is asked for; the caller may write meanwhile.
        """
        where, values = _where(
            workload=workload, target=target, outcome=outcome, run=run, final=final
        )
        sql = f"SELECT id FROM records {where} ORDER BY id DESC LIMIT ?"
        found = self.rows(sql, (*values, -1 if last is None else last))
        ids = [row[0] for row in reversed(found)]
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            for row in self.rows(f"{SELECT} WHERE r.id IN ({marks}) ORDER BY r.id", chunk):
                yield to_record(row)

    def record(self, number: int) -> Record | None:
        """The record of that id."""
        rows = self.rows(f"{SELECT} WHERE r.id = ?", (number,))
        return to_record(rows[0]) if rows else None

    def measured_keys(self, workload: str, target: str) -> set[str]:
        """Keys of the candidates that have a record, whatever became of them."""
        sql = "SELECT DISTINCT candidate FROM records WHERE workload = ? AND target = ?"
        return {row[0] for row in self.rows(sql, (workload, target))}

    def count(
        self,
        workload: str | None = None,
        target: str | None = None,
        *,
        outcome: str | None = None,
        run: str | None = None,
        final: bool | None = None,
    ) -> int:
        """How many records match."""
        where, values = _where(
            workload=workload, target=target, outcome=outcome, run=run, final=final
        )
        return int(self.rows(f"SELECT COUNT(*) FROM records {where}", values)[0][0])

    def best(self, workload: str, target: str) -> Record | None:
        """The fastest right candidate of a task, or None.

        Where leaders were measured again, only those re-measurements count. A candidate that was
        ever wrong, or failed when measured again, is left out. Ties go to the smaller candidate
        key, so that the same records always give the same answer.
        """
        rows = self.rows(f"{SELECT} WHERE r.id = ({_BEST})", (workload, target))
        return to_record(rows[0]) if rows else None

    def best_for_all(self, target: str) -> dict[str, Record]:
        """The best record of every workload that has one on ``target``, by workload key."""
        sql = f"SELECT w.key, ({_BEST_OF_W}) FROM workloads AS w ORDER BY w.key"
        found: dict[str, Record] = {}
        for key, number in self.rows(sql, (target,)):
            record = self.record(number) if number is not None else None
            if record is not None:
                found[key] = record
        return found

    # Reading what was registered

    def workload(self, key: str) -> WorkloadRow | None:
        """The workload of that key."""
        rows = self.rows("SELECT * FROM workloads WHERE key = ?", (key,))
        return WorkloadRow(*rows[0]) if rows else None

    def workloads(self) -> list[WorkloadRow]:
        """Every workload, by key."""
        return [WorkloadRow(*row) for row in self.rows("SELECT * FROM workloads ORDER BY key")]

    def target(self, digest: str) -> TargetRow | None:
        """The target of that digest."""
        rows = self.rows("SELECT * FROM targets WHERE digest = ?", (digest,))
        return TargetRow(*rows[0]) if rows else None

    def targets(self) -> list[TargetRow]:
        """Every target, by digest."""
        return [TargetRow(*row) for row in self.rows("SELECT * FROM targets ORDER BY digest")]

    def models(self) -> list[ModelRow]:
        """Every model, by digest."""
        return [ModelRow(*row) for row in self.rows("SELECT * FROM models ORDER BY digest")]

    def tasks(self, model: str, target: str) -> list[TaskRow]:
        """What ``model`` calls on ``target``, by workload."""
        sql = (
            "SELECT workload, calls, flops, bytes FROM model_tasks"
            " WHERE model = ? AND target = ? ORDER BY workload"
        )
        return [TaskRow(*row) for row in self.rows(sql, (model, target))]

    def run(self, run: str) -> RunRow | None:
        """The run of that id."""
        return next((row for row in self._runs("WHERE id = ?", (run,))), None)

    def runs(self) -> list[RunRow]:
        """Every run, oldest first."""
        return self._runs("", ())

    def _runs(self, where: str, values: tuple[str, ...]) -> list[RunRow]:
        sql = "SELECT id, target, model, started, finished, settings, versions, trials_done"
        return [RunRow(*row) for row in self.rows(f"{sql} FROM runs {where} ORDER BY id", values)]

    def stats(self) -> statistics.Stats:
        """Counts, and for each model how much of it is tuned and how long its tasks take."""
        with explained(self.path):
            return statistics.collect(self.path, self.connection)


_BEST = BEST.format(workload="?", target="?")
_BEST_OF_W = BEST.format(workload="w.key", target="?")


def _where(**wanted: Any) -> tuple[str, list[Any]]:
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given:
        return "", []
    return "WHERE " + " AND ".join(f"{name} = ?" for name in given), list(given.values())
