"""A tuner in a process of its own, watched from outside: what runs, and what it has stored."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MARK = "AUTOTUNE_TEST_MARK"
Rows = dict[int, tuple[Any, ...]]

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes by /proc"
)


def marked(mark: str) -> set[int]:
    """Every living process that was started, however indirectly, with ``mark`` around it."""
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            found.add(int(folder.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float, process: Any = None) -> bool:
    """Whether ``condition`` came true in time, and before ``process`` ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.02)
    return condition()


def snapshot(database: Path, scratch: Path) -> Rows:
    """Every record as stored, with its trace, by id. Reads a copy: looking changes nothing."""
    if not database.exists():
        return {}
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            shutil.copy(source, scratch / source.name)
    connection = sqlite3.connect(scratch / database.name)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "records" not in tables:
            return {}
        rows = connection.execute(
            "SELECT r.id, r.*, r.final, t.text FROM records AS r LEFT JOIN traces AS t "
            "ON t.id = r.trace"
        )
        return {row[0]: row[1:] for row in rows}
    finally:
        connection.close()


def count(database: Path, final: int) -> int:
    """Records that another process has committed so far."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        query = "SELECT COUNT(*) FROM records WHERE final = ?"
        return int(connection.execute(query, (final,)).fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        connection.close()
