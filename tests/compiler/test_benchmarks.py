"""The benchmarks run and say what they promise to say; what they measure is not tested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.target import resolve
from benchmarks import (
    database,
    graph,
    measure_rate,
    noise,
    profile,
    recurrent,
    runtime,
    search,
    time_to_goal,
    torch_backend,
)


class Stub:
    """In the place of MetaSchedule's engine, whose processes take a minute to start."""

    def __init__(self, *_: Any) -> None:
        pass

    def __call__(self, chunk: Sequence[Any]) -> list[str]:
        return ["measured" for _ in chunk]

    def settings(self) -> dict[str, Any]:
        return {}


def test_measure_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_rate, "MetaSchedule", Stub)
    monkeypatch.setattr(measure_rate, "find_spec", lambda name: True)
    path = tmp_path / "rate.json"
    options = ["--workloads", "tiny", "--candidates", "4", "--chunk", "2", "--json", str(path)]
    assert measure_rate.main(options) == 1  # nobody is faster than a stub
    found = json.loads(path.read_text())["workloads"]["tiny"]
    assert set(found["engines"]) == {"ours", "shipped", "cured"}
    for engine in found["engines"].values():
        assert engine["trials"] == sum(engine["outcomes"].values()) == 4
        assert len(engine["rates"]) == 2
    assert set(found["times_as_fast"]) == {"shipped", "cured"}
    assert found["claims"] == {"10x_shipped": False, "4x_cured": False}


def test_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(noise.BLOCK, "min_repeat_ms", 1)
    for name, value in {"FINALISTS": 2, "LOOKS": 1, "TURNS": 2, "EXECUTIONS": 3}.items():
        monkeypatch.setattr(noise, name, value)
    path = tmp_path / "noise.json"
    options = ["--kernels", "tiny", "--candidates", "3", "--rounds", "2", "--json", str(path)]
    assert noise.main(options) == 0
    found = json.loads(path.read_text())["kernels"]["tiny"]
    assert set(found["conditions"]) == {"quiet", "disturbed"}
    for rows in found["conditions"].values():
        assert set(rows) == {"ours", "block_mean", "ours_finals"}
        for row in rows.values():
            assert row["rounds"] == len(row["losses"]) == 2
            assert 0 <= row["best_named"] <= 2
        assert len(rows["ours"]["pairs"]) <= 1


def test_database(tmp_path: Path) -> None:
    path = tmp_path / "database.json"
    options = ["--records", "2000", "--processes", "2", "--each", "20"]
    assert database.main([*options, "--work", str(tmp_path), "--json", str(path)]) in (0, 1)
    found = json.loads(path.read_text())
    assert set(found["claims"]) == {"looked_up_in_under_a_millisecond", "no_record_lost"}
    assert found["claims"]["no_record_lost"] and found["writers"]["kept"] == 40
    assert [size["records"] for size in found["sizes"]] == [20, 200, 1000, 2000]
    assert 500 < found["sizes"][-1]["bytes_a_record"] < 5000


def test_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runtime.small(tmp_path / "made.onnx")
    monkeypatch.setattr(runtime, "model", lambda name: (made, {}))
    path = tmp_path / "runtime.json"
    options = ["--rounds", "2", "--work", str(tmp_path), "--json", str(path)]
    assert runtime.main(options) in (0, 1)  # it has no weights to compare its size with
    found = json.loads(path.read_text())
    assert len(found["loads"]) == 2 and found["load_seconds"] > 0
    assert set(found["around_a_call_seconds"]) == {"in_place", "copied"}


def test_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runtime.small(tmp_path / "made.onnx")
    monkeypatch.setattr(search, "whole", lambda name: (made, {}))
    path, plot = tmp_path / "search.json", tmp_path / "search.svg"
    options = ["--workloads", f"gemm,{search.MODEL}", "--seeds", "1", "--trials", "6"]
    options += ["--model-trials", "12", "--json", str(path), "--svg", str(plot)]
    assert search.main(options) in (0, 1)
    content = json.loads(path.read_text())
    assert set(content["workloads"]) == {"gemm", search.MODEL}
    for found, trials in zip(content["workloads"].values(), (6, 12), strict=True):
        assert set(found["samplers"]) == set(search.EVERY)
        for sampler in found["samplers"].values():
            assert 0 < len(sampler["curve"]) == len(sampler["clock"]) <= trials
            assert all(0 <= share <= 1 for share in sampler["curve"])
            assert sampler["curve"][-1] > 0
    assert content["claims"]
    assert plot.read_text().count("<polyline") == 4 * len(search.EVERY)


def test_the_whole_model_of_the_search_has_tasks() -> None:
    pytest.importorskip("torch", reason="torch is an extra")
    tasks = search.tasks_of(search.MODEL, resolve("native", 2))
    assert len(tasks) >= 8
    assert sum(task.calls * task.flops for task in tasks) > 2 * 12e6  # 12.5 million products


def two_products(path: Path) -> Path:
    """A model of two products of its input, which ``graph.parallel`` makes one."""
    from onnx import helper

    from tests.end_to_end.models import model, random_weights

    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(2)]
    weights = random_weights(w0=(32, 16), w1=(32, 48))
    return model(path, nodes, {"x": (8, 32)}, ("y0", "y1"), weights)


def test_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_products(tmp_path / "made.onnx")
    monkeypatch.setattr(graph, "model", lambda name: (made, {}))
    path = tmp_path / "graph.json"
    options = ["--models", "cls", "--rounds", "2", "--seconds", "0.2"]
    options += ["--work", str(tmp_path), "--json", str(path)]
    for more, names in (
        ([], {"default", "graph.parallel"}),
        (["--trials", "8"], {"direct", "searched"}),
    ):
        assert graph.main([*options, *more]) in (0, 1)
        content = json.loads(path.read_text())
        found = content["models"]["cls"]["variants"]
        assert set(found) == {"plain", *names}
        for name in names - {"direct", "searched"}:
            assert list(found[name]["chosen"]) == ["graph.parallel"]
        assert content["claims"]["every choice computes the same"]


def test_time_to_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_products(tmp_path / "made.onnx")
    monkeypatch.setattr(time_to_goal, "model", lambda name: (made, {}))
    path = tmp_path / "goal.json"
    options = ["--from", "empty", "--rounds", "1", "--limit", "20s", "--until", "onnxruntime:0.01"]
    assert time_to_goal.main([*options, "--work", str(tmp_path), "--json", str(path)]) in (0, 1)
    found = json.loads(path.read_text())
    (run,) = found["databases"]["empty"]["runs"]
    assert run["seconds"] > 0 and run["times_as_fast"][0] > 0
    assert found["claims"]["empty: within 300 s"]


@pytest.mark.parametrize(
    ("module", "option"),
    [
        (measure_rate, "--candidates"),
        (noise, "--candidates"),
        (database, "--each"),
        (runtime, "--rounds"),
        (search, "--seeds"),
        (profile, "--seconds"),
        (graph, "--rounds"),
        (time_to_goal, "--rounds"),
        (torch_backend, "--rounds"),
    ],
)
def test_wrong_use_is_a_sentence(
    module: Any, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([option, "0"]) == 2
    assert "must be" in capsys.readouterr().err


def test_recurrent(tmp_path: Path) -> None:
    path = tmp_path / "recurrent.json"
    options = ["--kinds", "GRU", "--steps", "6", "--sizes", "8", "--models", "tagger"]
    options += ["--trials", "0", "--bench", "0", "--least", "2"]
    assert recurrent.main([*options, "--work", str(tmp_path), "--json", str(path)]) == 0
    found = json.loads(path.read_text())["results"]
    assert set(found["GRU 6x8"]["engines"]) == {"loop", "unrolled", "onnxruntime"}
    assert set(found["tagger"]["engines"]) == {"default", "onnxruntime"}
    for result in found.values():
        assert all(engine["difference"] < 1e-4 for engine in result["engines"].values())
