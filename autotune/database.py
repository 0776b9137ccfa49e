"""Our border to the tuning database: its faults are told as ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autotune.errors import DatabaseError
from search_spaces.task import Target
from tuning_db.database import TuningDatabase
from tuning_db.errors import DatabaseFault, NotATuningDatabase, OlderVersion
from tuning_db.opening import check
from tuning_db.records import Record


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise the faults of the database as ``DatabaseError``, which the command line prints."""
    try:
        yield
    except DatabaseFault as fault:
        raise DatabaseError(str(fault)) from fault


def check_database(path: str | Path) -> None:
    """Raise what opening ``path`` for writing would, before any work is done for it.

    Nothing is made, upgraded or changed. Raises ``autotune.errors.DatabaseError``.
    """
    with database_errors():
        check(Path(path))


def check_timing(path: str | Path, target: Target, cache: str) -> None:
    """Refuse to mix times that cannot be compared: with hot and with cold caches.

    Raises ``autotune.errors.DatabaseError`` where ``path`` holds records of ``target`` that were
    timed with another cache than ``cache``.
    """
    check_database(path)
    path = Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with TuningDatabase.open(path, create=False, read_only=True) as database:
            was = timing_of(database, target, cache)
    except (OlderVersion, NotATuningDatabase):
        return  # those knew hot caches only; or it was killed before it held anything
    except DatabaseFault as fault:
        raise DatabaseError(str(fault)) from fault
    if was != cache:
        raise DatabaseError(
            f"{path} holds records of this target that were timed with {was} caches: use "
            f"--cache {was}, or another file with --db"
        )


def timing_of(database: TuningDatabase, target: Target, default: str = "cold") -> str:
    """With which caches the records of ``target`` were timed; ``default`` where there are none."""
    for run in database.runs():
        if run.target == target.digest and run.trials_done:
            return str(json.loads(run.settings).get("cache", "hot"))
    return default


def chosen_records(
    database: TuningDatabase, target: Target, ids: Sequence[int] | None, best: bool
) -> list[Record] | None:
    """The records with ``ids``, and with ``best`` those of each task; None where nothing is chosen.

    Raises ``DatabaseError`` where an id is none of ``target``.
    """
    if not ids and not best:
        return None
    found = list(database.best_for_all(target.digest).values()) if best else []
    for number in ids or ():
        record = database.record(number)
        if record is None or record.target != target.digest:
            where = "of another target" if record else "not there"
            raise DatabaseError(
                f"record {number} is {where}: `autotune db list --db {database.path}` shows what is"
            )
        found.append(record)
    return found


@contextmanager
def open_database(
    path: str | Path, create: bool = True, read_only: bool = False
) -> Iterator[TuningDatabase]:
    """Open the tuning database at ``path`` for the length of a block.

    Its faults, on opening and inside the block, are raised as ``autotune.errors.DatabaseError``.
    """
    with database_errors(), TuningDatabase.open(path, create, read_only) as database:
        yield database
