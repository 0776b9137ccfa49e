"""From an ONNX file to an artifact by the command line, and everything that reads the result."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.models import autotune, cnn

TRIALS = 12
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Tuned:
    """Where one run of `tune` left its things, and what it printed."""

    folder: Path
    printed: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.folder / "cnn.onnx"

    @property
    def database(self) -> Path:
        return self.folder / "tuning.db"

    @property
    def artifact(self) -> Path:
        return self.folder / "artifact"

    def tune(self, *words: Any) -> dict[str, Any]:
        done = autotune(
            "tune", self.model, "--trials", TRIALS, "--threads", 2, "--db", self.database,
            "--json", *words,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuned")
    cnn(folder / "cnn.onnx")
    printed = Tuned(folder, {}).tune("--output", folder / "artifact")
    return Tuned(folder, printed)


def original(model: Path, inputs: dict[str, Array]) -> list[Array]:
    """What ONNX Runtime computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def run(artifact: Path, folder: Path, inputs: dict[str, Array]) -> list[Array]:
    """What `autotune run` computes, by files."""
    words: list[Any] = []
    for name, value in inputs.items():
        np.save(folder / f"{name}.npy", value)
        words += ["--input", f"{name}={folder / name}.npy"]
    autotune("run", artifact, *words, "--output", folder / "out.npz")
    with np.load(folder / "out.npz") as outputs:
        return [outputs[name] for name in outputs.files]


def test_tune_measures_its_trials_and_writes_an_artifact(tuned: Tuned) -> None:
    printed = tuned.printed
    assert printed["stopped"] == "budget"
    assert printed["trials"]["all"] == printed["trials"]["new"] == TRIALS
    assert sum(task["trials"] for task in printed["tasks"]) == TRIALS
    names = [task["name"] for task in printed["tasks"]]
    assert any("conv2d" in name and "add_add_relu" in name for name in names), names
    for task in printed["tasks"]:
        assert 0 < task["seconds"] <= task["default_seconds"], "the default is always a candidate"
    assert printed["latency"] <= printed["baseline"]
    assert sum(printed["spaces"].values()) == pytest.approx(1)
    assert set(printed["spaces"]) == {task["space"] for task in printed["tasks"]}
    manifest = json.loads((tuned.artifact / "manifest.json").read_text())
    assert {task["workload"] for task in manifest["tasks"]} == {
        task["workload"] for task in printed["tasks"]
    }
    assert (tuned.artifact / "lib.so").stat().st_size > 0


def test_run_computes_what_onnx_runtime_computes(tuned: Tuned, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((1, 3, 16, 16)).astype("float32")
    (found,) = run(tuned.artifact, tmp_path, {"x": x})
    (expected,) = original(tuned.model, {"x": x})
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0.01, "outputs that are all alike would show nothing"


def test_compile_builds_the_same_bytes_from_the_database(tuned: Tuned, tmp_path: Path) -> None:
    before = tuned.database.read_bytes()
    done = autotune(
        "compile", tuned.model, "--threads", 2, "--db", tuned.database, "--output",
        tmp_path / "again", "--json",
    )  # fmt: skip
    printed = json.loads(done.stdout)
    assert printed["tuned"] == printed["tasks"] == len(tuned.printed["tasks"])
    assert sum(printed["spaces"].values()) == printed["tasks"]
    assert printed["shares"] == pytest.approx(tuned.printed["spaces"])
    again = (tmp_path / "again" / "lib.so").read_bytes()
    assert again == (tuned.artifact / "lib.so").read_bytes()
    assert tuned.database.read_bytes() == before, "compile only reads"


def test_the_same_budget_again_measures_nothing(tuned: Tuned) -> None:
    again = tuned.tune()
    assert again["trials"] == {**tuned.printed["trials"], "new": 0}
    assert again["stopped"] == "budget"
    assert [(t["workload"], t["seconds"]) for t in again["tasks"]] == [
        (t["workload"], t["seconds"]) for t in tuned.printed["tasks"]
    ]


def test_the_database_tells_the_best_of_each_task(tuned: Tuned) -> None:
    best = json.loads(autotune("db", "best", "--db", tuned.database, "--json").stdout)
    assert {row["workload"] for row in best} == {t["workload"] for t in tuned.printed["tasks"]}
    stats = json.loads(autotune("db", "stats", "--db", tuned.database, "--json").stdout)
    assert stats["records"] - stats["finals"] == TRIALS


def test_bench_times_both_and_compares_their_outputs(tuned: Tuned) -> None:
    done = autotune(
        "bench", tuned.artifact, "--against", "onnxruntime", "--model", tuned.model,
        "--time", "1s", "--json",
    )  # fmt: skip
    printed = json.loads(done.stdout)
    ours, theirs = printed["engines"]
    assert (ours["name"], theirs["name"]) == ("autotune", "onnxruntime")
    assert printed["threads"] == 2
    for engine in (ours, theirs):
        latency = engine["latency"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert theirs["ratio"]["low"] <= theirs["ratio"]["value"] <= theirs["ratio"]["high"]
    assert theirs["difference"]["relative"] < 1e-4


def test_a_real_classifier_compiled_by_defaults_agrees(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr-onnxruntime, which carries the model, is not installed")
    model = Path(spec.origin).parent / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    done = autotune(
        "compile", model, "--input", "x=1,3,48,192", "--threads", 2, "--output",
        tmp_path / "cls", "--json",
    )  # fmt: skip
    printed = json.loads(done.stdout)
    assert printed["tuned"] == 0
    assert [task for task in printed["not_tuned"] if task["source"] != "default"] == []
    assert printed["notes"] == [], "a first build that was wrong would be noted"
    x = np.random.default_rng(5).uniform(-1, 1, (1, 3, 48, 192)).astype("float32")
    (found,) = run(tmp_path / "cls", tmp_path, {"x": x})
    (expected,) = original(model, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_quiet_command_prints_its_result_alone(tuned: Tuned, tmp_path: Path) -> None:
    words = ["compile", tuned.model, "--threads", 2, "--db", tuned.database, "--output"]
    done = autotune(*words, tmp_path / "quiet", "--quiet")
    assert done.stderr == ""
    assert str(tmp_path / "quiet") in done.stdout
    assert "importing" in autotune(*words, tmp_path / "told").stderr
