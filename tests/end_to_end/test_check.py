"""`autotune check` on a small model: a baseline, a check that passes, and each way to be worse."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.end_to_end.models import autotune, layers

WIDE = ("--latency", "900%", "--p99", "9900%", "--memory", "900%", "--time", "1s")
"""What is checked here is not the machine's mood."""


@dataclass(frozen=True)
class Made:
    folder: Path

    @property
    def artifact(self) -> Path:
        return self.folder / "layers.built"

    @property
    def baseline(self) -> Path:
        return self.folder / "baseline.json"

    def check(self, artifact: Path, *words: Any) -> tuple[int, dict[str, Any], str]:
        done = autotune(
            "check", artifact, "--baseline", self.baseline, *WIDE, *words, "--json", check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def compiled(path: Path, output: Path) -> Path:
    autotune("compile", path, "--threads", 2, "--output", output)
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("check"))
    compiled(layers(made.folder / "layers.onnx"), made.artifact)
    words = ("check", made.artifact, "--baseline", made.baseline, "--update", "--time", "1s")
    printed = json.loads(autotune(*words, "--json").stdout)
    assert printed == json.loads(made.baseline.read_text())
    return made


def test_the_baseline_holds_a_copy_and_what_it_was(made: Made) -> None:
    known = json.loads(made.baseline.read_text())
    copy = made.folder / "baseline.artifact"
    for name in ("lib.so", "manifest.json"):
        assert (copy / name).read_bytes() == (made.artifact / name).read_bytes()
    figures = known["figures"]
    assert 0 < figures["best"] <= figures["p50"] <= figures["p95"] <= figures["p99"]
    assert figures["calls"] >= 100
    assert figures["size"] == sum(file.stat().st_size for file in copy.iterdir())
    assert known["machine"]["threads"] == 2


def test_what_did_not_change_passes(made: Made) -> None:
    code, printed, _ = made.check(made.artifact)
    assert (code, printed["worse"]) == (0, [])
    figures = {found["figure"]: found for found in printed["findings"]}
    assert list(figures) == ["p50", "p99", "memory", "size", "error"]
    assert figures["error"]["now"] == figures["size"]["change"] == 0.0
    assert figures["p50"]["now"] > 0 and figures["memory"]["now"] > 0
    assert 0 < figures["p50"]["probability"] <= 1


def test_a_slower_larger_and_different_artifact_is_worse_in_each(made: Made) -> None:
    # The same inputs and outputs, with a much wider layer between them.
    path = made.folder / "wide.onnx"
    proto = onnx.load(made.folder / "layers.onnx")
    rng = np.random.default_rng(1)
    shapes = {"w": (32, 8192), "v": (8192, 24)}
    for tensor in proto.graph.initializer:
        value = rng.standard_normal(shapes[tensor.name]).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(proto, path)
    wide = compiled(path, made.folder / "wide.built")
    done = autotune(
        "check", wide, "--baseline", made.baseline, "--latency", "50%", "--time", "1s", check=False
    )
    assert done.returncode == 1, done.stderr
    verdict = done.stdout.splitlines()[-1]
    assert verdict.startswith("worse than the baseline: latency p50")
    assert "size on disk" in verdict and "output error" in verdict
    assert done.stdout.count("WORSE") >= 3
    assert "different model files" in done.stderr


def test_what_cannot_be_compared_is_refused(made: Made, tmp_path: Path) -> None:
    before = made.baseline.read_bytes()
    code, _, said = made.check(made.artifact, "--against", made.folder)
    assert code == 2 and "is not there" in said
    damaged = tmp_path / "damaged"
    shutil.copytree(made.artifact, damaged)
    (damaged / "lib.so").write_bytes(b"no library")
    code, _, said = made.check(damaged)
    assert code == 2 and "lib.so is not the file that was compiled" in said
    known = json.loads(before)
    known["machine"]["digest"] = "0" * 32
    moved = Made(tmp_path)
    moved.baseline.write_text(json.dumps(known))
    code, _, said = moved.check(made.artifact, "--against", made.artifact)
    assert code == 2 and "another machine" in said
    assert said.splitlines()[-1].startswith("autotune: ")
    assert made.baseline.read_bytes() == before
