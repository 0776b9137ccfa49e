"""`autotune db` reads, writes and refuses as its help says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autotune.cli.db import app
from autotune.errors import UserError
from autotune.measure.outcome import Crashed
from tests.unit.database_samples import (
    TARGET,
    candidate,
    file_bytes,
    matmul,
    measured,
    open_with_run,
    record,
    trace_of,
)
from tuning_db.database import TuningDatabase
from tuning_db.records import WorkloadRow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.db"
    database, run = open_with_run(path)
    with database:
        for tile in range(4):
            database.add(record(tile, measured(1e-3 * (4 - tile)), run))
        database.add(record(9, Crashed("run", 11, "segmentation fault"), run))
    return path


def run(*arguments: str | Path, code: int = 0, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def answer(*arguments: str | Path) -> Any:
    return json.loads(run(*arguments, "--json"))


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(result.exception, UserError), (result.output, result.exception)
    sentence = str(result.exception)
    assert "\n" not in sentence
    return sentence


def test_stats(path: Path) -> None:
    found = answer("stats", "--db", path)
    assert found["outcomes"] == {"crashed": 1, "measured": 4}
    assert found["models"][0]["tuned"] == 1
    text = run("stats", "--db", path)
    assert "two-layers" in text and "EPYC 7601" in text


def test_list_filters(path: Path) -> None:
    assert [row["id"] for row in answer("list", "--db", path)] == [1, 2, 3, 4, 5]
    assert [row["id"] for row in answer("list", "--db", path, "--last", "2")] == [4, 5]
    (row,) = answer("list", "--db", path, "--outcome", "crashed")
    assert row["detail"]["signal"] == 11
    assert len(answer("list", "--db", path, "--workload", "matmul128")) == 5
    assert answer("list", "--db", path, "--workload", "matmul256") == []
    assert len(run("list", "--db", path).splitlines()) == 6


def test_show_a_record_a_workload_and_a_target(path: Path) -> None:
    found = answer("show", "2", "--db", path)
    assert found["parameters"] == {"tile": 1, "unroll": True}
    assert run("show", "2", "--trace", "--db", path).strip() == trace_of(candidate(1))
    assert answer("show", "matmul256", "--db", path)["description"]["arguments"]
    assert answer("show", TARGET.digest[:8], "--db", path)["description"]["cores"] == 2


def test_best(path: Path) -> None:
    (found,) = answer("best", "--db", path)
    assert (found["id"], found["workload_name"], found["seconds"]) == (4, "matmul128", 1e-3)
    (found,) = answer("best", "--db", path, "--target", TARGET.digest[:6])
    assert found["id"] == 4
    assert "matmul128" in run("best", "--db", path)


def test_reading_changes_nothing(path: Path) -> None:
    before = file_bytes(path)
    for command in (["stats"], ["list"], ["best"], ["show", "1"], ["export"]):
        run(*command, "--db", path)
    run("prune", "--dry-run", "--db", path)
    assert {name: data for name, data in file_bytes(path).items() if data} == before


def test_export_and_import(path: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other.db"
    run("export", "--db", path, "--output", out)
    assert out.read_text() == run("export", "--db", path)
    (result,) = answer("import", out, "--db", other)
    assert (result["records"], result["refused"]) == (5, 0)
    assert answer("best", "--db", other)[0]["seconds"] == 1e-3
    assert "5 records" in run("import", "-", "--db", tmp_path / "third.db", stdin=out.read_bytes())


def test_an_import_with_refused_lines_says_which_and_exits_with_1(
    path: Path, tmp_path: Path
) -> None:
    lines = run("export", "--db", path).splitlines()
    lines.insert(2, '{"kind": "record", "evil": "\\u001b[2J"}')
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    arguments = ["import", str(tmp_path / "in.jsonl"), "--db", str(tmp_path / "other.db")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "line 3 refused" in result.stderr and "1 refused" in result.stdout
    assert "\x1b" not in result.output
    with TuningDatabase.open(tmp_path / "other.db", create=False) as other:
        assert other.count() == 5


def test_merge(path: Path, tmp_path: Path) -> None:
    database, started = open_with_run(tmp_path / "other.db")
    with database:
        database.add(record(50, measured(1e-6), started))
    (first,) = answer("merge", tmp_path / "other.db", "--db", path)
    assert first["records"] == 1
    (second,) = answer("merge", tmp_path / "other.db", "--db", path)
    assert (second["records"], second["others"]) == (0, 0)
    assert answer("best", "--db", path)[0]["run"] == started


def test_prune(path: Path) -> None:
    assert answer("prune", "--keep", "2", "--db", path)["dropped"] == 3
    assert [row["id"] for row in answer("list", "--db", path)] == [3, 4]


def test_mistakes_are_named_and_nothing_is_made(path: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.txt"
    junk.write_text("hello")
    before = file_bytes(path)
    none = tmp_path / "none.db"
    for command in (["stats"], ["list"], ["best"], ["show", "1"], ["export"], ["prune"]):
        assert "no tuning database at" in refused(*command, "--db", none)
    assert "not an export" in refused("import", junk, "--db", none)
    assert "cannot be read" in refused("import", tmp_path / "nothing.jsonl", "--db", none)
    assert "not a SQLite database" in refused("merge", junk, "--db", none)
    assert not none.exists()
    assert "no workload is called 'conv'" in refused("list", "--workload", "conv", "--db", path)
    assert "start of 2 keys" in refused("list", "--workload", "0000", "--db", path)
    assert "no target is called" in refused("best", "--target", "zz", "--db", path)
    assert "use one of" in refused("list", "--outcome", "good", "--db", path)
    assert "no record, workload or target" in refused("show", "77", "--db", path)
    assert "is the database itself" in refused("export", "--db", path, "-o", path)
    assert "cannot be written" in refused("export", "--db", path, "-o", tmp_path / "no" / "x")
    assert file_bytes(path) == before


def test_a_terminal_gets_a_table_that_no_name_can_break(path: Path) -> None:
    with TuningDatabase.open(path) as database:
        evil = matmul(7).workload.key
        database.register(WorkloadRow(evil, "[red]\x1b[2Jevil", "{}", "{}"))
        started = database.runs()[0].id
        database.add(record(1, measured(1e-3), started, task=matmul(7)))
    master, slave = pty.openpty()
    code = "from autotune.cli.db import app; app()"
    arguments = [sys.executable, "-c", code, "best", "--db", str(path)]
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(arguments, stdout=slave, env=environment, timeout=60)
    os.close(slave)
    text = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    assert "matmul128" in text and "│" in text
    assert "[red]" in text and "\x1b[2J" not in text


def test_help_is_light(path: Path) -> None:
    code = (
        "import sys; from autotune.cli.db import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tvm', 'torch', 'xgboost', 'optuna', 'sqlite_utils', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
