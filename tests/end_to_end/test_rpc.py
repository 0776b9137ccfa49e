"""The command line with a device: tuned there, lost there, continued there, compiled from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compiler.devices import Devices, free_port, kill
from tests.end_to_end.models import autotune, layers

pytest.importorskip("tornado", reason="TVM's tracker needs tornado")


@pytest.fixture(scope="module")
def devices() -> Iterator[Devices]:
    with Devices() as started:
        yield started


def test_a_model_is_tuned_on_a_device_that_disappears(devices: Devices, tmp_path: Path) -> None:
    server = devices.serve("board")
    model = layers(tmp_path / "layers.onnx")
    words = ["--db", tmp_path / "tuning.db", "--threads", 2, "--key", "board", "--json"]
    rpc = ["--rpc", devices.tracker, "--rpc-wait"]

    first = autotune("tune", model, "--trials", 4, *words, *rpc, 20, "--output", tmp_path / "made")
    assert json.loads(first.stdout)["trials"]["new"] == 4
    assert (tmp_path / "made" / "manifest.json").exists()

    kill(server)
    lost = autotune("tune", model, "--trials", 8, *words, *rpc, 1, check=False)
    assert lost.returncode == 2, lost.stderr
    (sentence,) = (line for line in lost.stderr.splitlines() if line.startswith("autotune: "))
    assert "no device 'board'" in sentence and "autotune device --tracker" in sentence

    devices.serve("board")
    again = json.loads(autotune("tune", model, "--trials", 6, *words, *rpc, 20).stdout)
    assert (again["trials"]["all"], again["trials"]["new"]) == (6, 2)

    there = autotune("compile", model, *words, "--output", tmp_path / "there")
    assert json.loads(there.stdout)["tuned"] > 0
    here = autotune("compile", model, *words[:4], "--json", "--output", tmp_path / "here")
    assert json.loads(here.stdout)["tuned"] == 0  # this machine's own records: there are none


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--key", "board"], "need --rpc HOST:PORT"),
        (["--rpc-cc", "gcc"], "need --rpc HOST:PORT"),
        (["--rpc", "localhost", "--key", "board"], "write it as HOST:PORT"),
        (["--rpc", "localhost:1"], "use --key"),
        (["--target", "board.json"], "say with --rpc HOST:PORT"),
        (["--target", "board.json", "--rpc", "localhost:1", "--key", "other"], "correct --key"),
    ],
)
def test_half_a_device_is_refused(words: list[str], sentence: str, tmp_path: Path) -> None:
    shown = json.loads(autotune("target", "show", "--json").stdout)
    (tmp_path / "board.json").write_text(json.dumps(shown | {"device": "board"}))
    layers(tmp_path / "layers.onnx")
    done = autotune("tune", "layers.onnx", "--trials", 1, *words, folder=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "tuning.db").exists()


def test_a_device_without_its_tracker_says_so() -> None:
    done = autotune("device", "--tracker", "nowhere", "--key", "board", check=False)
    assert (done.returncode, "HOST:PORT" in done.stderr) == (2, True)
    port = free_port()
    words = ("--host", "203.0.113.1", "--port", port)  # an address that no machine has
    done = autotune("device", "--tracker", "localhost:1", "--key", "board", *words, check=False)
    assert done.returncode == 2 and f"port {port}" in done.stderr, done.stderr
