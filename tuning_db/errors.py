"""What can be wrong with a database file, by cause; each message is one sentence with its cure."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DatabaseFault(Exception):
    """Root of what this package explains. Raised with the file left as it was."""


class NotATuningDatabase(DatabaseFault):
    """The file is missing, is no SQLite file, or belongs to another program."""


class Damaged(DatabaseFault):
    """The file is a tuning database whose pages no longer fit together."""


class NewerVersion(DatabaseFault):
    """A later version of this package wrote the file."""


class OlderVersion(DatabaseFault):
    """The file has to be upgraded, which reading it does not do."""


class Unwritable(DatabaseFault):
    """The file or its folder cannot be written (or, for reading, opened) by this user."""


class Locked(DatabaseFault):
    """Another process held the write lock for longer than the time limit."""


class DiskFull(DatabaseFault):
    """No room is left for what was to be written; everything recorded before is kept."""


class UnknownReference(DatabaseFault):
    """A row names a workload, target, model or run that was never registered."""


class InvalidRow(DatabaseFault):
    """A row cannot be stored: a field is outside of what the schema allows."""


class DuplicateRecord(DatabaseFault):
    """The same run has recorded a first measurement of this candidate before."""


class BadExchangeFile(DatabaseFault):
    """A whole file of exported lines is refused: no header, or one of another format."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file at ``path`` into faults; let programming errors pass."""
    try:
        yield
    except sqlite3.Error as error:
        fault = _fault(path, error)
        if fault is None:
            raise
        raise fault from error


def _fault(path: Path, error: sqlite3.Error) -> DatabaseFault | None:
    name = str(getattr(error, "sqlite_errorname", ""))
    if name == "SQLITE_NOTADB":
        return NotATuningDatabase(
            f"{path} is not a SQLite database: name another file with --db, or move it away"
        )
    if name.startswith("SQLITE_CORRUPT"):
        return damaged(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return Locked(
            f"{path} stayed locked by another process: wait until it is done, or end it, and "
            "run the command again"
        )
    if name == "SQLITE_FULL":
        return DiskFull(
            f"no space is left to write to {path}: free some and run the command again, "
            "everything recorded so far is kept"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return Unwritable(
            f"{path} cannot be opened or written by this user: change the permissions of the file "
            "and its folder, or name another file with --db"
        )
    if name.startswith("SQLITE_IOERR"):
        return DatabaseFault(
            f"the system failed to read or write {path} ({error}): check the disk and its quota, "
            "everything recorded so far is kept"
        )
    return None


def damaged(path: Path, finding: str) -> Damaged:
    """The fault for a file whose content does not fit together."""
    first = finding.strip().splitlines()[0] if finding.strip() else "unreadable"
    return Damaged(
        f"{path} is damaged ({first}): restore a copy of it, or save what can be read with "
        f"`sqlite3 {path.name} .recover`"
    )
