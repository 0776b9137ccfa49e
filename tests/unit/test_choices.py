"""Frontends, cost models and runners of others are used where they are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.choice import Choice
from autotune.errors import InputError, ModelError
from autotune.frontends import import_model, registry
from autotune.frontends.base import Frontend, ImportedModel
from autotune.frontends.onnx import OnnxFrontend
from autotune.measure.runners import make_runner, runner_choice
from autotune.measure.timing import TimingPlan
from autotune.measure.tracker import Device
from autotune.search.budget import Budget
from autotune.search.loop import tune_tasks
from autotune.search.settings import SearchSettings
from autotune.testing import AnalyticRunner
from autotune.testing.landscape import TARGET, latency, make_task
from cost_models.random import RandomModel
from tuning_db.database import TuningDatabase


class Noted(RandomModel):
    """Notes what it was asked."""

    ranked = 0

    def rank(self, task: Any, target: Any, candidates: Any) -> Any:
        Noted.ranked += len(candidates)
        return super().rank(task, target, candidates)


@pytest.mark.usefixtures("landscape", "small_pool")
def test_the_cost_model_that_is_chosen_guides_the_search(database: TuningDatabase) -> None:
    runner = AnalyticRunner(TARGET, latency)
    settings = SearchSettings(budget=Budget(12), rounds=0, cost_model=lambda seed: Noted(seed))
    tune_tasks([make_task()], TARGET, runner, database, settings)
    assert Noted.ranked > 100
    named = SearchSettings(budget=Budget(16), rounds=0, cost_model="random")
    assert tune_tasks([make_task()], TARGET, runner, database, named).new == 4
    assert named.described()["cost_model"] == "random"


@pytest.mark.usefixtures("landscape")
def test_a_cost_model_for_a_sampler_that_asks_none_is_refused(database: TuningDatabase) -> None:
    runner = AnalyticRunner(TARGET, latency)
    settings = SearchSettings(sampler="tpe", cost_model="random")
    with pytest.raises(InputError, match="sampler tpe asks no cost model"):
        tune_tasks([make_task()], TARGET, runner, database, settings)
    assert not database.models() and not runner.measured


def test_a_runner_is_made_of_what_it_names() -> None:
    def make(target: Any, plan: Any, hosts: int = 1) -> AnalyticRunner:
        assert isinstance(plan, TimingPlan)
        return AnalyticRunner(target, latency, samples=hosts)

    made = make_runner(runner_choice(make, None), TARGET, TimingPlan())
    assert isinstance(made, AnalyticRunner) and made.target == TARGET
    chosen = Choice("runner", "mine", make, {"hosts": 3})
    several = make_runner(chosen, TARGET, TimingPlan(), status=print)
    assert isinstance(several, AnalyticRunner) and several.samples == 3
    with pytest.raises(InputError, match="mine does not heed --cores"):
        make_runner(chosen, TARGET, TimingPlan(), cores=2)


def test_a_runner_has_a_device_or_needs_none() -> None:
    device = Device("127.0.0.1:9190", "board")
    assert runner_choice(None, None).name == "local"
    assert runner_choice(None, device).name == "rpc"
    with pytest.raises(InputError, match="say with --rpc HOST:PORT"):
        runner_choice("rpc", None)
    with pytest.raises(InputError, match="runner local reaches no device"):
        runner_choice("local", device)


class Notes(Frontend):
    """For text files, and for lists in memory."""

    name = "notes"
    reads = "notes (.txt)"

    def takes(self, source: Any) -> bool:
        return isinstance(source, list) or str(source).endswith(".txt")

    def load(self, source: Any, input_shapes: Any) -> ImportedModel:
        return ImportedModel("notes", f"{source} {input_shapes}", None, (), (), lambda inputs: {})


def test_a_frontend_is_asked_about_every_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "usable", lambda kind: (OnnxFrontend(), Notes()))
    assert import_model("a.txt", {"x": (1,)}).digest == "a.txt {'x': (1,)}"
    assert import_model([1, 2]).digest == "[1, 2] {}"
    (tmp_path / "model.pb").write_bytes(b"\x0a\x00")
    for source, words in (
        (tmp_path / "model.pb", r"model.pb is no model .* ONNX files \(.onnx\), notes \(.txt\)"),
        (tmp_path, "is a directory"),
        (tmp_path / "gone", "there is no file"),
        (3.5, "float is no model"),
    ):
        with pytest.raises(ModelError, match=words):
            import_model(source)
