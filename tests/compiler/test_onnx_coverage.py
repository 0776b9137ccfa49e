"""A spread of the ONNX project's own tests, and models of exporters: none wrong, none crashed; and
damaged models."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.onnx_fuzz import mutants

ROOT = Path(__file__).resolve().parents[2]
RIGHT = 29
"""Cases of the subset that are right: more is welcome, fewer is a step back."""


def run(module: str, *words: str, folder: Path) -> tuple[int, Any, str]:
    """A benchmark in a process of its own, since it forks: exit code, JSON and what it printed."""
    path = folder / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *words, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    found = json.loads(path.read_text()) if path.exists() else None
    return done.returncode, found, done.stdout + done.stderr


def test_a_spread_of_the_standards_own_tests(tmp_path: Path) -> None:
    code, found, told = run("onnx_coverage", "--subset", folder=tmp_path)
    assert code == 0, told
    assert not set(found["outcomes"]) - {"right", "refused"}, told
    assert found["outcomes"]["right"] >= RIGHT, told
    assert all(result["reason"] for result in found["results"] if result["outcome"] == "refused")
    assert {"simplified", "inlined", "rewritten"} <= set(found["stages"])


def test_damaged_models_end_with_a_sentence(tmp_path: Path) -> None:
    code, found, told = run("onnx_fuzz", "--count", "40", folder=tmp_path)
    assert code == 0, told
    assert sum(found["outcomes"].values()) == 40
    assert found["outcomes"]["refused"] > 20


@pytest.mark.skipif(
    find_spec("torch") is None, reason="torch, which exports the models, is missing"
)
def test_models_as_torch_exports_them(tmp_path: Path) -> None:
    """By TorchScript: torch.export's way needs onnxscript, which tests do without."""
    names = ",".join(f"script_{name}" for name in ("lstm", "topk", "integers", "pads", "nonzero"))
    words = ("--exporters", "torch", "--only", names)
    code, found, told = run("onnx_exports", *words, folder=tmp_path)
    assert code == 0, told
    assert found["outcomes"]["torch"] == {"right": 4, "refused": 1}, told
    (refused,) = (result for result in found["results"] if result["outcome"] == "refused")
    assert refused["name"] == "torch/script_nonzero" and "no tensor of a fixed shape" in told


def test_an_exporter_that_is_not_installed_is_left_out(tmp_path: Path) -> None:
    words = ("--exporters", "versions,paddle", "--only", "layers_opset15")
    code, found, told = run("onnx_exports", *words, folder=tmp_path)
    assert code == 0, told
    assert found["outcomes"] == {"versions": {"right": 1}}
    assert "paddle is left out: paddlepaddle is not installed" in told


def test_equal_seeds_make_equal_damage() -> None:
    assert list(mutants(20, 7)) == list(mutants(20, 7))
    assert list(mutants(20, 7)) != list(mutants(20, 8))


@pytest.mark.parametrize("module", ["onnx_coverage", "onnx_exports", "onnx_fuzz"])
def test_wrong_use_is_a_sentence(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import import_module

    assert import_module(f"benchmarks.{module}").main(["--jobs", "0"]) == 2
    assert "must be" in capsys.readouterr().err
