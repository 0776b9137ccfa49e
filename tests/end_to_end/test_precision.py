"""Shorter numbers within a budget, by the command line: chosen, measured, kept and built again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from autotune.runtime import load
from autotune.target import native
from search_spaces.precisions import kinds_of
from tests.end_to_end.artifacts import contents, manifest
from tests.end_to_end.models import autotune, model, random_weights, refused

needs_short = pytest.mark.skipif(
    "bfloat16" not in kinds_of(native(1)) or "int8" not in kinds_of(native(1)),
    reason="this CPU has no instructions for bfloat16 and int8 (AVX-512 BF16 and VNNI)",
)
# By name, since what a small kernel shows to be faster is up to the machine.
BOTH = ("--precisions", "int8,bfloat16", "--calibration", "s.npz")
HALF = ("--precisions", "bfloat16")
TUNE = ("--threads", 1, "--trials", 8, "--db", "tuning.db", "--output", "artifact", "--json")


def products(path: Path) -> Path:
    """Three layers that take their time; what they are worth in shorter numbers is clear."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w1"], ["h1"]),
        node("Relu", ["h1"], ["r1"]),
        node("MatMul", ["r1", "w2"], ["h2"]),
        node("Relu", ["h2"], ["r2"]),
        node("MatMul", ["r2", "w3"], ["y"]),
    ]
    weights = random_weights(w1=(512, 768), w2=(768, 768), w3=(768, 64))
    return model(path, nodes, {"x": (96, 512)}, weights=weights)


def samples(path: Path, count: int = 8) -> Path:
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.uniform(-1, 1, (count, 96, 512)).astype(np.float32))
    return path


def precision(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = manifest(artifact)["graph"]["spaces"].get("graph.precision", {})
    return found


def lost(folder: Path, inputs: np.ndarray) -> float:
    """Of the original's output, by the artifact."""
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    run = load(folder / "artifact")
    pairs = [(session.run(None, {"x": x})[0], run({"x": x})["y"]) for x in inputs]
    right, found = (np.stack(each).astype(np.float64) for each in zip(*pairs, strict=True))
    return float(np.linalg.norm(right - found) / np.linalg.norm(right))


BUDGET = 0.03


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its samples, tuned within ``BUDGET``; told.json is what it said."""
    folder = tmp_path_factory.mktemp("precision")
    products(folder / "m.onnx")
    samples(folder / "s.npz")
    words = ("--accuracy-budget", BUDGET, *BOTH)
    (folder / "told.json").write_text(
        autotune("tune", "m.onnx", *TUNE, *words, folder=folder).stdout
    )
    return folder


def check_held(folder: Path, told: str, budget: float, kind: str) -> None:
    """The budget holds, and the manifest says what is lost of it."""
    found = precision(folder / "artifact")
    kinds = {kind.split()[0] for kind in found.get("parameters", {}).values()}
    error = lost(folder, np.load(folder / "s.npz")["x"][3::4])
    assert error <= budget
    graph = json.loads(told)["graph"]
    assert graph["kept"] == (graph["times_as_fast"][1] > 1)
    if graph["kept"]:  # whether it is faster is up to the machine
        assert kind in kinds
        accuracy = found["accuracy"]
        assert accuracy["error"] == pytest.approx(error, rel=1e-3)
        assert accuracy["limit"] == budget
        assert accuracy["samples"] == 2 and accuracy["held_back"] and accuracy["given"]


@needs_short
def test_whole_numbers_within_a_wide_budget(tuned: Path) -> None:
    check_held(tuned, (tuned / "told.json").read_text(), BUDGET, "int8")


@needs_short
def test_a_narrow_budget_undoes_what_costs_too_much(tmp_path: Path) -> None:
    products(tmp_path / "m.onnx")
    samples(tmp_path / "s.npz")
    words = ("--accuracy-budget", 0.006, *BOTH)
    done = autotune("tune", "m.onnx", *TUNE, *words, folder=tmp_path)
    check_held(tmp_path, done.stdout, 0.006, "bfloat16")


@needs_short
def test_what_was_chosen_is_built_again_byte_for_byte(tuned: Path) -> None:
    options = ("--threads", 1, "--db", "tuning.db")
    autotune("compile", "m.onnx", *options, "--output", "again", folder=tuned)
    assert contents(tuned / "again") == contents(tuned / "artifact")
    autotune("lock", "m.onnx", *options, "--output", "m.lock", folder=tuned)
    autotune("compile", "m.onnx", "--lock", "m.lock", "--output", "locked", folder=tuned)
    assert contents(tuned / "locked") == contents(tuned / "artifact")
    autotune("reproduce", "artifact", "--model", "m.onnx", *options[2:], folder=tuned)
    if precision(tuned / "artifact"):
        words = ("--model", "m.onnx", "--threads", 1, "--time", "1s")
        done = autotune("bench", "artifact", *words, folder=tuned)
        assert "sums of products" in done.stdout


@needs_short
def test_a_budget_that_only_float32_holds(tuned: Path) -> None:
    words = ("--accuracy-budget", 1e-5, *HALF, "--output", "exact")
    done = autotune("tune", "m.onnx", *TUNE[:-3], *words, folder=tuned)
    assert not precision(tuned / "exact") and "within 1e-05" in done.stderr


@needs_short
def test_who_does_not_ask_gets_float32(tuned: Path) -> None:
    autotune("tune", "m.onnx", *TUNE[:-3], "--output", "full", folder=tuned)
    assert not precision(tuned / "full")


METRIC = """
import numpy as np

def share(run):
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (96, 512)).astype(np.float32)
    return float((run({"x": x})["y"].argmax(-1) % 2).mean())

def fails(run):
    raise RuntimeError("no labels")

def nothing(run):
    return float("nan")
"""


@needs_short
def test_a_budget_of_the_users_own_metric(tmp_path: Path) -> None:
    products(tmp_path / "m.onnx")
    (tmp_path / "metric.py").write_text(METRIC)
    words = ("--accuracy-budget", 0.5, *HALF, "--eval", "metric:share")
    autotune("tune", "m.onnx", *TUNE, *words, folder=tmp_path)
    found = precision(tmp_path / "artifact").get("accuracy")
    assert found is None or (found["kind"] == "metric" and found["error"] <= 0.5)


@needs_short
def test_wrong_use_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    products(tmp_path / "m.onnx")
    samples(tmp_path / "s.npz")
    (tmp_path / "metric.py").write_text(METRIC)
    np.savez(tmp_path / "wrong.npz", x=np.zeros((4, 96, 500), np.float32))
    cases = {
        ("--precisions", "int8", "--accuracy-budget", 0.1): "give samples of it with --calibration",
        ("--calibration", "wrong.npz", "--accuracy-budget", 0.1): "shape 4x96x500",
        ("--calibration", "s.npz"): "state --accuracy-budget",
        ("--accuracy-budget", "much"): "is no accuracy budget",
        ("--accuracy-budget", 1e-12, *HALF): "cannot be met: in float32",
        ("--accuracy-budget", 0.1, "--precisions", "int4"): "there is no precision 'int4'",
        ("--accuracy-budget", 0.1, "--eval", "metric:fails"): "RuntimeError: no labels",
        ("--accuracy-budget", 0.1, "--eval", "metric:nothing"): "returned nan",
    }
    for words, said in cases.items():
        assert said in refused("tune", "m.onnx", *TUNE, *words, folder=tmp_path)
        assert not (tmp_path / "artifact").exists()
