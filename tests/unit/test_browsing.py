"""Anyone can browse a database with ordinary tools, without a line of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.database_samples import TARGET, TASK
from tests.unit.test_migrations import make

VIEWS = ("best_per_task", "tuning_progress", "failures_by_cause", "verified")
TABLES = ("targets", "workloads", "models", "model_tasks", "runs", "records", "traces")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browsing") / "tuning.db"
    make(path)
    return path


def tool(name: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", (*TABLES, *VIEWS))
def test_datasette_has_a_page_of_everything(path: Path, name: str) -> None:
    page = tool("datasette", path, "--get", f"/tuning/{name}")
    assert "<table" in page or name == "verified"  # nothing was verified in this file


def test_datasette_answers_what_people_ask(path: Path) -> None:
    def rows(view: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(
            tool("datasette", path, "--get", f"/tuning/{view}.json?_shape=array")
        )
        return found

    (best,) = rows("best_per_task")
    assert (best["workload_name"], best["target_model"]) == (TASK.workload.name, TARGET.model)
    assert best["microseconds"] == pytest.approx(900)
    assert {row["outcome"] for row in rows("failures_by_cause")} == {"build_failed", "wrong_result"}
    progress = [row["best_microseconds"] for row in rows("tuning_progress")]
    assert progress[:3] == [1000, 1000, 1000]


def test_sqlite_utils_shows_the_views_and_where_keys_lead(path: Path) -> None:
    for view in VIEWS:
        tool("sqlite_utils", "rows", path, view, "-t")
    assert TASK.workload.name in tool("sqlite_utils", "rows", path, "best_per_task", "-t")
    schema = tool("sqlite_utils", "schema", path, "records")
    for table in ("workloads", "targets", "runs", "traces"):
        assert f"REFERENCES {table}" in schema
