"""`autotune bench` with all that it measures on demand, on models that take moments."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.models import autotune, layers, refused

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is an extra"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """layers.onnx, and an artifact of it for each of two batch sizes."""
    folder = tmp_path_factory.mktemp("bench")
    path = layers(folder / "layers.onnx", ("batch", 32))
    for batch in (2, 8):
        autotune(
            "compile", path, "--input", f"x={batch},32", "--threads", 1,
            "--output", folder / f"by{batch}",
        )  # fmt: skip
    return folder


def test_everything_is_measured_of_every_engine(folder: Path) -> None:
    words = ("--model", "layers.onnx", "--time", "0.3s", "--callers", 2, "--details")
    done = autotune(
        "bench", "by2", "by8", *words, "--csv", "out.csv", "--json", folder=folder
    )  # fmt: skip
    results = json.loads(done.stdout)
    assert [result["batch"] for result in results] == [2, 8]
    for result in results:
        assert [engine["name"] for engine in result["engines"]] == ["autotune", "onnxruntime"]
        assert result["reference"] == "float64"
        for engine in result["engines"]:
            throughput, details = engine["throughput"], engine["details"]
            assert throughput["callers"] == 2
            assert 0 < throughput["low"] <= throughput["value"] <= throughput["high"]
            for figure in ("import_time", "load_time", "first_call", "peak_memory"):
                assert details[figure] > 0, (engine["name"], figure)
            assert details["error"]["relative"] < 1e-5
    with (folder / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = [(row["artifact"], row["engine"]) for row in rows]
    assert told == [(a, e) for a in ("by2", "by8") for e in ("autotune", "onnxruntime")]
    flat = [engine for result in results for engine in result["engines"]]
    for row, engine in zip(rows, flat, strict=True):
        assert float(row["p50"]) == engine["latency"]["p50"]
        assert float(row["throughput"]) == engine["throughput"]["value"]
        assert int(row["peak_memory"]) == engine["details"]["peak_memory"]


def test_what_cannot_be_compared_is_said_in_a_sentence(folder: Path) -> None:
    said = refused("bench", "by2", "--against", "torch", "--model", "layers.onnx", folder=folder)
    assert "torch runs programs of torch.export" in said
    said = refused("bench", "by2", "--callers", -1, folder=folder)
    assert "-1 callers" in said
    said = refused("bench", "by2", "--csv", "no/out.csv", folder=folder)
    assert "no/out.csv cannot be written" in said


@pytest.fixture(scope="module")
def counter(folder: Path) -> Path:
    """A program of torch.export that keeps a sum in a buffer, and its artifact."""
    import torch

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.ones(4))
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            self.total.add_(x.sum(0))
            return {"y": self.layer(x) + self.total}

    program = torch.export.export(Counter().eval(), (torch.randn(3, 4),))
    torch.export.save(program, folder / "counter.pt2")
    autotune("compile", "counter.pt2", "--threads", 1, "--output", "counter", folder=folder)
    return folder


@needs_torch
def test_torch_runs_the_program_with_its_state_as_an_artifact_does(counter: Path) -> None:
    done = autotune(
        "bench", "counter", "--model", "counter.pt2", "--against", "torch", "--time", "0.3s",
        "--json", folder=counter,
    )  # fmt: skip
    ours, theirs = json.loads(done.stdout)["engines"]
    assert (ours["name"], theirs["name"]) == ("autotune", "torch")
    assert theirs["latency"]["p50"] > 0
    assert theirs["difference"]["relative"] < 1e-5
