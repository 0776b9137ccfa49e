"""A file that cannot be used is refused with its cause, and stays byte for byte what it was."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from autotune.database import check_database, open_database
from autotune.errors import DatabaseError
from tests.unit.database_samples import TARGET, TASK, file_bytes, measured, open_with_run, record
from tuning_db.database import TuningDatabase
from tuning_db.errors import (
    Damaged,
    DatabaseFault,
    DiskFull,
    Locked,
    NewerVersion,
    NotATuningDatabase,
    OlderVersion,
    Unwritable,
)
from tuning_db.schema import migrations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of 200 records, closed."""
    path = tmp_path / "tuning.db"
    database, run = open_with_run(path)
    with database, database.transaction():
        for tile in range(200):
            database.add(record(tile, measured(1e-3), run))
    return path


def _not_sqlite(path: Path) -> None:
    path.write_bytes(b"model,time\nresnet,3\n" * 100)


def _of_something_else(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096, 4):
        content[page * 4096 : page * 4096 + 2048] = os.urandom(2048)
    path.write_bytes(content)


def _newer(path: Path) -> None:
    with Database(path) as database:
        database["_sqlite_migrations"].insert(
            {"migration_set": "tuning_db", "name": "9999_later", "applied_at": "2031-01-01"}
        )


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("spoil", "fault", "says"),
    [
        (_not_sqlite, NotATuningDatabase, "not a SQLite database"),
        (_of_something_else, NotATuningDatabase, "something else"),
        (_truncated, Damaged, "is damaged"),
        (_header_only, DatabaseFault, "tuning.db"),
        (_overwritten, Damaged, "is damaged"),
        (_newer, NewerVersion, "newer version of autotune (9999_later)"),
    ],
)
def test_what_is_no_sound_tuning_database_is_refused_and_left_alone(
    path: Path,
    spoil: Callable[[Path], None],
    fault: type[DatabaseFault],
    says: str,
    read_only: bool,
) -> None:
    spoil(path)
    before = file_bytes(path)
    with pytest.raises(fault) as caught:
        TuningDatabase.open(path, read_only=read_only)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file_bytes(path) == before


def test_faults_reach_the_user_as_errors_of_the_database(path: Path) -> None:
    _truncated(path)
    with pytest.raises(DatabaseError, match="is damaged"), open_database(path):
        pass


def test_damage_found_later_is_explained_too(path: Path) -> None:
    with TuningDatabase.open(path) as database:
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _overwritten(path)
        with pytest.raises(Damaged, match="restore a copy"):
            for _ in database.records():
                pass
            database.stats()


def test_a_missing_file_is_made_only_where_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NotATuningDatabase, match="no tuning database at"):
        TuningDatabase.open(tmp_path / "none.db", create=False)
    with pytest.raises(NotATuningDatabase, match="no tuning database at"):
        TuningDatabase.open(tmp_path / "none.db", read_only=True)
    with pytest.raises(Unwritable, match="does not exist"):
        TuningDatabase.open(tmp_path / "no" / "folder" / "tuning.db")
    with pytest.raises(NotATuningDatabase, match="is a folder"):
        TuningDatabase.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_database_to_be(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    path.touch()
    with pytest.raises(NotATuningDatabase, match="empty"):
        TuningDatabase.open(path, create=False)
    assert path.stat().st_size == 0
    TuningDatabase.open(path).close()
    TuningDatabase.open(path, create=False).close()


def test_what_tuning_may_open_is_told_without_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    check_database(path)
    path.touch()
    check_database(path)
    with Database(path) as database:
        migrations.apply(database, stop_before="0002_views")
    before = file_bytes(path)
    check_database(path)
    assert file_bytes(path) == before, "an older file is upgraded when it is opened, not before"
    with pytest.raises(DatabaseError, match="does not exist"):
        check_database(tmp_path / "no" / "tuning.db")
    _truncated(path)
    with pytest.raises(DatabaseError, match="is damaged"):
        check_database(path)


def test_an_older_file_is_upgraded_by_who_may_write(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    with Database(path) as database:
        migrations.apply(database, stop_before="0002_views")
    before = file_bytes(path)
    with pytest.raises(OlderVersion, match="to upgrade it"):
        TuningDatabase.open(path, read_only=True)
    assert file_bytes(path) == before
    TuningDatabase.open(path).close()
    with TuningDatabase.open(path, read_only=True) as upgraded:
        assert upgraded.connection.execute("SELECT * FROM best_per_task").fetchall() == []


def test_reading_leaves_the_bytes_and_no_other_files(path: Path) -> None:
    before = file_bytes(path)
    with TuningDatabase.open(path, read_only=True) as database:
        assert database.best(TASK.workload.key, TARGET.digest) is not None
        assert database.stats().records == 200
        with pytest.raises(Unwritable):
            database.begin_run(TARGET.digest)
    assert file_bytes(path) == before


def test_a_lock_held_too_long_is_reported_and_nothing_is_lost(path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with TuningDatabase.open(path, timeout=0.2) as database:
        run = database.runs()[0].id
        with pytest.raises(Locked, match="locked by another process"):
            database.add(record(900, measured(1e-3), run))
        assert database.count() == 200  # reading goes on meanwhile
        holder.execute("ROLLBACK")
        database.add(record(900, measured(1e-3), run))
        assert database.count() == 201
    holder.close()


def test_a_full_disk_keeps_what_was_recorded(path: Path) -> None:
    with TuningDatabase.open(path) as database:
        run = database.runs()[0].id
        pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
        database.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        added = 0
        with pytest.raises(DiskFull, match="no space is left"):
            for tile in range(1000, 2000):
                database.add(record(tile, measured(1e-3), run))
                added += 1
        assert not database.connection.in_transaction
        assert database.count() == 200 + added
        row = database.run(run)
        assert row is not None and row.trials_done == 200 + added
        database.connection.execute("PRAGMA max_page_count = 100000")
        database.add(record(5000, measured(1e-3), run))
    TuningDatabase.open(path, create=False).close()


LIMITED = textwrap.dedent(
    """
    import resource, sys
    from pathlib import Path
    from tests.unit.database_samples import measured, record
    from tuning_db.database import TuningDatabase
    from tuning_db.errors import DatabaseFault

    database = TuningDatabase.open(Path(sys.argv[1]))
    run = database.runs()[0].id
    limit = Path(sys.argv[1]).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    added = 0
    try:
        for tile in range(1000, 100_000):
            database.add(record(tile, measured(1e-3), run))
            added += 1
    except DatabaseFault as fault:
        print(added, fault)
    """
)


def test_a_write_that_the_system_refuses_is_explained(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    added, sentence = done.stdout.split(" ", 1)
    assert "everything recorded so far is kept" in sentence
    with TuningDatabase.open(path, create=False) as database:
        assert database.count() == 200 + int(added)


NOBODY = 65534


@pytest.fixture
def shared(path: Path) -> Iterator[Path]:
    """A copy of the database in a folder that everyone may enter and only its owner may write."""
    folder = Path(tempfile.mkdtemp())
    copy = folder / "tuning.db"
    shutil.copy(path, copy)
    copy.chmod(0o444)
    folder.chmod(0o555)
    yield copy
    folder.chmod(0o755)
    shutil.rmtree(folder)


def _as_nobody(attempt: Callable[[], object]) -> str:
    """Run ``attempt`` in a forked child without any privilege; "done", or what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            attempt()
            answer = "done"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_folder_or_file_that_cannot_be_written_is_named(shared: Path) -> None:
    before = file_bytes(shared)
    answer = _as_nobody(lambda: TuningDatabase.open(shared))
    assert answer.startswith("Unwritable: ") and str(shared) in answer
    answer = _as_nobody(lambda: TuningDatabase.open(shared.with_name("new.db")))
    assert answer.startswith("Unwritable: ") and "cannot be written" in answer
    assert file_bytes(shared) == before


def test_a_file_that_can_only_be_read_is_read(shared: Path) -> None:
    def read() -> None:
        with TuningDatabase.open(shared, read_only=True) as database:
            assert database.stats().records == 200
            assert database.best(TASK.workload.key, TARGET.digest) is not None

    before = file_bytes(shared)
    assert _as_nobody(read) == "done"
    assert file_bytes(shared) == before


def test_a_file_that_may_not_be_read_is_named(shared: Path) -> None:
    shared.chmod(0o000)
    answer = _as_nobody(lambda: TuningDatabase.open(shared, read_only=True))
    assert answer.startswith("Unwritable: ") and "cannot be read" in answer
