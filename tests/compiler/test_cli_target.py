"""The command line asks TVM for the targets that it does not know itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "words",
    [["tune", "missing.onnx", "--target", "z80"], ["target", "show", "z80"]],
    ids=lambda words: " ".join(words),
)
def test_an_unknown_target_exits_with_2_and_leaves_nothing_behind(
    words: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autotune.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "z80" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_plugins_lists_every_kind_with_its_package_version_and_state() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autotune.cli.main", "plugins", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = {(entry["kind"], entry["name"]): entry for entry in json.loads(done.stdout)}
    for kind, name in (
        ("frontend", "onnx"),
        ("graph space", "graph.norms"),
        ("search space", "cpu.tiled"),
        ("sampler", "tpe"),
        ("cost model", "xgboost"),
        ("runner", "local"),
    ):
        entry = found[kind, name]
        assert entry["package"] == "autotune" and entry["version"]
        assert (entry["state"], entry["error"]) == ("loaded", "")
