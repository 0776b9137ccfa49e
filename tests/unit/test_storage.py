"""A database can be looked at with Optuna's own tools."""

from __future__ import annotations

import optuna
import pytest
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.errors import InputError
from autotune.measure.outcome import BuildFailed
from autotune.search.storage import write_studies
from tests.unit.database_samples import OTHER_TASK, TARGET, TASK, measured, open_with_run, record


@pytest.fixture
def database(tmp_path):
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        for tile in (4, 1, 2, 8):
            database.add(record(tile, measured(1e-3 / tile), run))
        database.add(record(16, BuildFailed("build", "no good"), run))
        database.add(record(8, measured(1e-4), run, final=True))
        database.add(record(3, measured(1e-3), run, task=OTHER_TASK))
        yield database


def test_every_task_is_a_study(database, tmp_path):
    path = tmp_path / "studies.db"
    assert write_studies(database, path) == 2
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    studies = {s.user_attrs["workload"]: s for s in optuna.get_all_study_summaries(storage)}
    assert set(studies) == {TASK.workload.key, OTHER_TASK.workload.key}
    name = studies[TASK.workload.key].study_name
    assert TASK.workload.name in name and TARGET.model in name
    study = optuna.load_study(study_name=name, storage=storage)
    assert [t.params["gemm.tile"] for t in study.trials] == [4, 1, 2, 8, 16]
    assert study.best_trial.params == {"space": "gemm", "gemm.tile": 8, "gemm.unroll": True}
    assert study.best_value == pytest.approx(1e-3 / 8)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4 + ["FAIL"]
    assert study.trials[-1].user_attrs["outcome"] == "build_failed"
    assert optuna.importance.get_param_importances(study)


def test_the_command_writes_one_task_and_keeps_what_is_there(database, tmp_path):
    path, output = tmp_path / "tuning.db", tmp_path / "one.db"
    words = ["db", "study", "--db", str(path), "--output", str(output)]
    done = CliRunner().invoke(app, [*words, "--workload", TASK.workload.name])
    assert done.exit_code == 0, done.output
    assert "1 studies written" in done.output
    assert f"optuna-dashboard sqlite:///{output}" in done.output
    before = output.read_bytes()
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, InputError) and "exists" in str(again.exception)
    assert output.read_bytes() == before
