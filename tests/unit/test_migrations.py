"""Databases of every schema that was ever released open, upgraded, with all that they hold.

``schemas`` holds a file of each, named after the last step it had; a release with new steps gets a
new file, made by ``python -m tests.unit.test_migrations``.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from autotune.measure.outcome import BuildFailed, WrongResult
from tests.unit.database_samples import (
    OTHER_TASK,
    TARGET,
    TASK,
    candidate,
    measured,
    open_with_run,
    record,
)
from tuning_db.database import TuningDatabase
from tuning_db.errors import OlderVersion
from tuning_db.schema import migrations

SCHEMAS = Path(__file__).parent / "schemas"
FILES = sorted(SCHEMAS.glob("*.db"))


def steps() -> list[str]:
    with Database(memory=True) as empty:
        return [step.name for step in migrations.pending(empty)]


def make(path: Path) -> None:
    """A file of the newest schema that holds something of everything."""
    database, run = open_with_run(path)
    with database:
        for tile in range(6):
            database.add(record(tile, measured(1e-3 * (tile + 1)), run))
        database.add(record(1, measured(0.9e-3), run, final=True))
        database.add(record(2, measured(1.2e-3), run, final=True))
        database.add(record(7, BuildFailed("build", "no good"), run))
        database.add(record(8, WrongResult(1.0, 1e-5, "y"), run, task=OTHER_TASK))
        database.finish_run(run)


def test_the_newest_schema_has_a_file() -> None:
    assert FILES[-1].stem == steps()[-1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_of_each_schema_is_upgraded_and_keeps_everything(file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(file, tmp_path / "tuning.db"))
    before = path.read_bytes()
    if file.stem != steps()[-1]:
        with pytest.raises(OlderVersion):
            TuningDatabase.open(path, read_only=True)
        assert path.read_bytes() == before
    with TuningDatabase.open(path) as database:
        assert database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        best = database.best(TASK.workload.key, TARGET.digest)
        assert best is not None
        assert (best.candidate, best.seconds) == (candidate(1).key, 0.9e-3)
        assert len(best.samples) == 10 and best.trace
        found = list(database.records())
        assert len(found) == 10
        outcomes = {row.outcome for row in found}
        assert outcomes == {"measured", "build_failed", "wrong_result"}
        (run,) = database.runs()
        assert (run.trials_done, run.finished is not None) == (8, True)
        assert database.stats().models[0].name == "two-layers"
        database.add(record(50, measured(0.5e-3), run.id, final=True))
        best = database.best(TASK.workload.key, TARGET.digest)
        assert best is not None and best.candidate == candidate(50).key
    shapes = [_schema(path)]
    make(tmp_path / "new.db")
    shapes.append(_schema(tmp_path / "new.db"))
    assert shapes[0] == shapes[1], "an upgraded file is like a new one"


def _schema(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = dict(rows.fetchall())
    connection.close()
    return found


if __name__ == "__main__":
    make(SCHEMAS / f"{steps()[-1]}.db")
