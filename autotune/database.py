"""Our border to the tuning database: its faults are told as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotune.errors import DatabaseError
from tuning_db.database import TuningDatabase
from tuning_db.errors import DatabaseFault
from tuning_db.opening import check


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


@contextmanager
def open_database(
    path: str | Path, create: bool = True, read_only: bool = False
) -> Iterator[TuningDatabase]:
    """Open the tuning database at ``path`` for the length of a block.

    Its faults, on opening and inside the block, are raised as ``autotune.errors.DatabaseError``.
    """
    with database_errors(), TuningDatabase.open(path, create, read_only) as database:
        yield database
