"""Export and import as JSON lines; merging databases is one after the other.

The schema is ``tuning_db.lines``, described in ``docs/database.md``. An import only parses,
compares and stores: nothing in a file is executed, and no path in it is opened.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from pydantic import ValidationError

from tuning_db import lines
from tuning_db.database import TuningDatabase
from tuning_db.errors import BadExchangeFile, DatabaseFault, DuplicateRecord, explained
from tuning_db.records import Record, TargetRow, WorkloadRow
from tuning_db.rows import SELECT, checked, to_record

BATCH = 500
"""Lines imported by one transaction: other writers get their turn in between."""

LINE_LIMIT = 128 << 20
"""Bytes of the longest line that is looked at."""

REASONS_KEPT = 100


@dataclass(frozen=True)
class Refusal:
    """A line that was left out, by its number (from 1), and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Imported:
    """What an import did. ``known`` lines were here before; ``refusals`` are the first hundred."""

    records: int
    others: int
    known: int
    refused: int
    refusals: tuple[Refusal, ...]


def export_lines(database: TuningDatabase, target: str | None = None) -> Iterator[str]:
    """Yield ``database`` line by line, in an order in which an import knows all that is named.

    Only what belongs to ``target`` (a digest), if it is given. Equal content gives equal lines,
    whatever the order in which it was written. The file is read as it was when the first line
    was asked for, whoever writes to it meanwhile.
    """
    with explained(database.path), TuningDatabase.open(database.path, False, True) as reader:
        reader.connection.execute("BEGIN")
        for line in _lines(reader, target):
            yield line.model_dump_json()


def _lines(database: TuningDatabase, target: str | None) -> Iterator[lines.Line]:
    # Not validated here: what is stored is exported, and judged by whoever imports it.
    targets = [row for row in database.targets() if target in (None, row.digest)]
    yield lines.Header.model_construct()
    for row in targets:
        yield lines.TargetLine.model_construct(
            digest=row.digest, model=row.model, description=row.description
        )
    for workload in database.workloads():
        yield lines.WorkloadLine.model_construct(**vars(workload))
    for model in database.models():
        yield lines.ModelLine.model_construct(**vars(model), target=None, tasks=[])
        for row in targets:
            if tasks := database.tasks(model.digest, row.digest):
                called = [lines.TaskOfModel.model_construct(**vars(task)) for task in tasks]
                yield lines.ModelLine.model_construct(
                    **vars(model), target=row.digest, tasks=called
                )
    for run in database.runs():
        if target in (None, run.target):
            yield lines.RunLine.model_construct(**vars(run))
    for record, turn in _in_natural_order(database, target):
        yield _record_line(record, turn)


def _in_natural_order(database: TuningDatabase, target: str | None) -> Iterator[tuple[Record, int]]:
    sql = (
        "SELECT id FROM records WHERE ?1 IS NULL OR target = ?1"
        " ORDER BY run, workload, target, candidate, round"
    )
    ids = iter(database.connection.execute(sql, (target,)).fetchall())
    while chunk := [row[0] for row in islice(ids, BATCH)]:
        marks = ",".join("?" * len(chunk))
        rows = database.connection.execute(f"{SELECT} WHERE r.id IN ({marks})", chunk).fetchall()
        found = {row[-2]: row for row in rows}
        for number in chunk:
            yield to_record(found[number]), found[number][-1]


def _record_line(record: Record, turn: int) -> lines.RecordLine:
    values: dict[str, Any] = {
        name: value for name, value in vars(record).items() if name not in ("final", "id")
    }
    values["samples"] = list(record.samples)
    if record.error == math.inf:
        values["error"] = "Infinity"
    return lines.RecordLine.model_construct(**values, round=turn)


def import_lines(database: TuningDatabase, source: IO[bytes] | Iterable[bytes]) -> Imported:
    """Add the lines of ``source`` to ``database``; what is there already stays as it is.

    Idempotent. A line that is damaged, or that contradicts itself, is left out with its reason,
    and so are those that need it. Raises ``BadExchangeFile`` if the first line is no header of a
    version known here; then nothing is imported.
    """
    return store_lines(database, open_lines(source))


NumberedLines = Iterator[tuple[int, bytes | None]]


def open_lines(source: IO[bytes] | Iterable[bytes]) -> NumberedLines:
    """Check the header of ``source`` and return its other lines with their numbers.

    The first half of an import, for callers who make the database only if there is anything to
    put into it. Raises ``BadExchangeFile``.
    """
    numbered = enumerate(_bounded(source), start=1)
    _check_header(next(numbered, (1, b""))[1])
    return numbered


def store_lines(database: TuningDatabase, numbered: NumberedLines) -> Imported:
    """The second half of an import: add what ``open_lines`` returned to ``database``."""
    intake = _Intake(database)
    while batch := list(islice(numbered, BATCH)):
        with database.transaction():
            for number, raw in batch:
                if raw is None or raw.strip():
                    intake.take(number, raw)
    return intake.result()


def merge(database: TuningDatabase, other: TuningDatabase) -> Imported:
    """Add everything in ``other`` to ``database``, each record with the run it came from.

    Idempotent and associative: targets, runs and records go by digests and ids that are the same
    in every file, so that no target ever answers for another.
    """
    return import_lines(database, (line.encode() for line in export_lines(other)))


def _bounded(source: IO[bytes] | Iterable[bytes]) -> Iterator[bytes | None]:
    """The lines of ``source``, None for one that is too long (read in pieces, never kept)."""
    if not hasattr(source, "readline"):
        yield from source
        return
    while line := source.readline(LINE_LIMIT):
        if len(line) < LINE_LIMIT or line.endswith(b"\n"):
            yield line
            continue
        while (rest := source.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
            pass
        yield None


def _check_header(raw: bytes | None) -> None:
    try:
        header = json.loads(raw or b"")
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != lines.FORMAT:
        raise BadExchangeFile(
            "this is not an export of a tuning database: make one with `autotune db export`"
        )
    if header.get("version") != lines.VERSION:
        raise BadExchangeFile(
            f"this export is of version {str(header.get('version'))[:20]} and version "
            f"{lines.VERSION} is understood: export it with the same version of autotune"
        )


class _Intake:
    """Takes one line after another; a refused line changes nothing."""

    def __init__(self, database: TuningDatabase) -> None:
        self.database = database
        self.records = self.others = self.known = self.refused = 0
        self.refusals: list[Refusal] = []

    def take(self, number: int, raw: bytes | None) -> None:
        try:
            if raw is None:
                raise ValueError(f"longer than {LINE_LIMIT} bytes")
            line = lines.parser.validate_json(raw)
            added = self._undoing(line)
        except (ValueError, RecursionError, DatabaseFault, sqlite3.IntegrityError) as error:
            self.refused += 1
            if len(self.refusals) < REASONS_KEPT:
                self.refusals.append(Refusal(number, _reason(error)))
            return
        if not added:
            self.known += 1
        elif isinstance(line, lines.RecordLine):
            self.records += 1
        else:
            self.others += 1

    def _undoing(self, line: Any) -> bool:
        connection = self.database.connection
        connection.execute("SAVEPOINT line")
        try:
            return self._store(line)
        except BaseException:
            # A full disk has ended the whole transaction, savepoint and all.
            if connection.in_transaction:
                connection.execute("ROLLBACK TO line")
            raise
        finally:
            if connection.in_transaction:
                connection.execute("RELEASE line")

    def _store(self, line: Any) -> bool:
        database = self.database
        before = database.connection.total_changes
        match line:
            case lines.TargetLine():
                database.register_target(TargetRow(line.digest, line.model, line.description))
            case lines.WorkloadLine():
                database.register(WorkloadRow(line.key, line.name, line.function, line.description))
            case lines.ModelLine():
                self._store_model(line)
            case lines.RunLine():
                self._store_run(line)
            case lines.RecordLine():
                return self._store_record(line)
            case _:
                raise ValueError("a second header")
        return database.connection.total_changes > before

    def _store_model(self, line: lines.ModelLine) -> None:
        execute = self.database.connection.execute
        execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (line.digest, line.name))
        for task in line.tasks:
            execute(
                "INSERT INTO model_tasks VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (line.digest, line.target, task.workload, task.calls, task.flops, task.bytes),
            )

    def _store_run(self, line: lines.RunLine) -> None:
        # The same run may have been exported while it worked and again when it was done.
        self.database.connection.execute(
            "INSERT INTO runs (id, target, model, started, finished, settings, versions,"
            " trials_done) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " finished = COALESCE(MAX(finished, excluded.finished), finished, excluded.finished),"
            " trials_done = MAX(trials_done, excluded.trials_done)"
            " WHERE finished IS NOT COALESCE(MAX(finished, excluded.finished), finished,"
            " excluded.finished) OR trials_done < excluded.trials_done",
            tuple(
                getattr(line, name)
                for name in ("id", "target", "model", "started", "finished", "settings")
            )
            + (line.versions, line.trials_done),
        )

    def _store_record(self, line: lines.RecordLine) -> bool:
        run = self.database.run(line.run)
        if run is not None and run.target != line.target:
            raise ValueError("its run is one of another target")
        values = line.model_dump(exclude={"kind", "round", "error", "samples"})
        error = math.inf if line.error == "Infinity" else line.error
        samples = tuple(line.samples)
        record = Record(**values, error=error, samples=samples, final=line.round > 0)
        try:
            self.database.insert(checked(record), line.round)
        except DuplicateRecord:
            return False
        return True

    def result(self) -> Imported:
        return Imported(self.records, self.others, self.known, self.refused, tuple(self.refusals))


def _reason(error: BaseException) -> str:
    """One short line; what it quotes of a hostile file is cut and cannot move a cursor."""
    if isinstance(error, ValidationError):
        faults = [
            ".".join(str(part) for part in fault["loc"][1:])
            + ": "
            + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors(include_url=False, include_input=False)
        ]
        text = "; ".join(fault.removeprefix(": ") for fault in faults[:3])
    elif isinstance(error, sqlite3.IntegrityError):
        text = f"it names something this file does not hold, or breaks a rule ({error})"
    else:
        text = str(error)
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
