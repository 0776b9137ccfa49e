"""From a path to a connection, without changing a file that turns out not to be usable."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from sqlite_utils import Database

from tuning_db.errors import (
    DatabaseFault,
    NewerVersion,
    NotATuningDatabase,
    OlderVersion,
    Unwritable,
    damaged,
    explained,
)
from tuning_db.schema import APPLICATION_ID, migrations

MAGIC = b"SQLite format 3\0"
CHECK_BYTES = 256 << 20
"""Files up to this size are checked page by page on opening; see ``_check_pages``."""
SECOND_LOOK = 0.05
"""Seconds before a file that looked faulty is looked at again; above the grain of file times."""


def connect(path: Path, *, create: bool, read_only: bool, timeout: float) -> sqlite3.Connection:
    """Open the tuning database at ``path``, made or upgraded where that is needed and allowed.

    ``timeout`` is how many seconds to wait for another process's lock. Raises a ``DatabaseFault``
    with the file's bytes unchanged.
    """
    with explained(path):
        exists = _examine_path(path, create=create and not read_only)
        if exists:
            examine(path, check_pages=True, upgradable=not read_only)
        if read_only:
            return _connect_reading(path, timeout)
        connection = _connect(path, "rwc" if create else "rw", timeout)
        try:
            _prepare(connection, timeout)
        except BaseException:
            connection.close()
            raise
        return connection


def check(path: Path) -> None:
    """Raise the ``DatabaseFault`` that opening ``path`` for writing would; changes nothing.

    A file that is missing, empty or of an older version is none: opening makes or upgrades it.
    """
    with explained(path):
        if _examine_path(path, create=True):
            examine(path, check_pages=True, upgradable=True)
        if path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise Unwritable(
                f"{path} cannot be written by this user: change the permissions of the file and "
                "its folder, or name another file with --db"
            )


def _examine_path(path: Path, *, create: bool) -> bool:
    """Whether there is a file to examine; raises where there is none and none may be made."""
    folder = path.parent
    if path.is_dir():
        raise NotATuningDatabase(f"{path} is a folder: name a file with --db")
    if not path.exists():
        if not create:
            raise NotATuningDatabase(
                f"there is no tuning database at {path}: name one with --db, or make one with "
                "`autotune tune`"
            )
        if not folder.is_dir():
            raise Unwritable(f"the folder {folder} does not exist: make it, or name another --db")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Unwritable(f"the folder {folder} cannot be written: name another file with --db")
        return False
    if not os.access(path, os.R_OK):
        raise Unwritable(f"{path} cannot be read by this user: change its permissions")
    # A kill between making the file and its first page leaves it empty: that is a new one.
    if path.stat().st_size == 0:
        if not create:
            raise NotATuningDatabase(f"{path} is empty: it holds no tuning database yet")
        return False
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise NotATuningDatabase(
                f"{path} is not a SQLite database: name another file with --db, or move it away"
            )
    return True


def examine(path: Path, *, check_pages: bool, upgradable: bool) -> None:
    """Raise unless ``path`` is a sound tuning database of this version, or one to upgrade.

    Where nobody has the file open it is read as immutable, which leaves no side files behind.
    Another process that makes or upgrades the file meanwhile may make that look damaged, so a
    fault counts only when a second look finds it again in a file that did not change in between.
    """
    seen: tuple[int, int] | None = None
    while True:
        before = path.stat()
        try:
            _look(path, check_pages, upgradable)
            return
        except (DatabaseFault, sqlite3.DatabaseError):
            stamp = (before.st_mtime_ns, before.st_size)
            if seen == stamp:
                raise
            seen = stamp
            time.sleep(SECOND_LOOK)


def _look(path: Path, check_pages: bool, upgradable: bool) -> None:
    journal = path.with_name(path.name + "-wal")
    _examine(path, "mode=ro" if journal.exists() else "immutable=1", check_pages, upgradable)


def _examine(path: Path, flags: str, check_pages: bool, upgradable: bool) -> None:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{flags}", uri=True)
    try:
        # One view of the file for all that is asked of it, whatever others write meanwhile.
        connection.execute("BEGIN")
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if mark != APPLICATION_ID and (mark or tables):
            raise NotATuningDatabase(
                f"{path} is a SQLite file of something else: name another file with --db"
            )
        database = Database(connection, execute_plugins=False)
        applied = {step.name for step in migrations.applied(database)}
        missing = migrations.pending(database)
        if unknown := sorted(applied - _known()):
            raise NewerVersion(
                f"{path} was written by a newer version of autotune ({unknown[-1]}): upgrade "
                "autotune, or name another file with --db"
            )
        if not upgradable and not applied:
            raise NotATuningDatabase(f"{path} is empty: it holds no tuning database yet")
        if not upgradable and missing:
            raise OlderVersion(
                f"{path} is of an older version: run a command that writes to it, such as "
                "`autotune tune`, to upgrade it"
            )
        if check_pages and path.stat().st_size <= CHECK_BYTES:
            _check_pages(path, connection)
    finally:
        connection.close()


def _known() -> set[str]:
    with Database(memory=True) as empty:
        return {step.name for step in migrations.pending(empty)}


def _check_pages(path: Path, connection: sqlite3.Connection) -> None:
    finding = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if finding != "ok":
        raise damaged(path, finding)


def _connect(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    # Transactions are begun by hand (isolation_level None): the module's own would begin one
    # without the write lock and fail when it asks for it later.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _connect_reading(path: Path, timeout: float) -> sqlite3.Connection:
    # A connection that may write cleans up its side files when it closes; one that may not
    # leaves them behind, and needs them where the folder cannot be written.
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK):
        connection = _connect(path, "rw", timeout)
    elif path.with_name(path.name + "-wal").exists():
        connection = _connect(path, "ro", timeout)
    else:
        connection = _connect(path, "ro&immutable=1", timeout)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _prepare(connection: sqlite3.Connection, timeout: float) -> None:
    """Write-ahead log, durable commits, newest schema."""
    _enable_wal(connection, timeout)
    # FULL syncs the log at each commit (0.3 ms on an SSD, against 100 ms and more of a
    # measurement): an acknowledged record survives a power cut, not only a kill.
    connection.execute("PRAGMA synchronous = FULL")
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    if not migrations.pending(database):
        return
    # Two processes may find the same new file: the second waits here and finds nothing to do.
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(database)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _enable_wal(connection: sqlite3.Connection, timeout: float) -> None:
    # SQLite does not wait for locks in this statement, whatever the busy timeout says.
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_BUSY")
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
