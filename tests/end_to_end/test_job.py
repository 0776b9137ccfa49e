"""A job from a file: models for this machine and for a device, stopped, killed, and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from autotune.jobs.status import job_status
from tests.compiler.devices import Devices
from tests.end_to_end.models import ENVIRONMENT, autotune, command, layers
from tests.end_to_end.processes import MARK, Rows, count, marked, needs_proc, snapshot, wait_for

TRIALS = 4


def summary(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries of the summary by model and target."""
    told = json.loads((folder / "tuned" / "summary.json").read_text())
    return {(entry["model"], entry["target"]): entry for entry in told["entries"]}


def states(folder: Path) -> list[str]:
    return [entry["state"] for entry in summary(folder).values()]


def test_models_are_tuned_here_and_on_a_device_and_one_that_fails_stops_no_other(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    (tmp_path / "bad.onnx").write_text("no model at all\n" * 100)
    layers(tmp_path / "layers.onnx")
    with Devices() as devices:
        devices.serve("rk3588", threads=1)
        (tmp_path / "jobs.toml").write_text(
            f"""
            trials = {TRIALS}
            [[models]]
            path = "bad.onnx"
            targets = ["here"]
            [[models]]
            path = "layers.onnx"
            [[targets]]
            name = "here"
            threads = 1
            [[targets]]
            name = "board"
            threads = 1
            rpc = "{devices.tracker}"
            key = "rk3588"
            rpc-wait = 30
            """
        )
        done = autotune("job", "run", "jobs.toml", folder=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    entries = summary(tmp_path)
    assert states(tmp_path) == ["failed", "done", "done"], done.stderr
    assert "not an ONNX model" in entries["bad", "here"]["message"]
    assert "failed: bad.onnx" in done.stdout, "the table has it, too"
    for where in ("here", "board"):
        entry = entries["layers", where]
        assert entry["trials"] == TRIALS
        assert 0 < entry["seconds"] <= entry["default_seconds"]
        assert (tmp_path / entry["artifact"] / "manifest.json").is_file()
    assert count(tmp_path / "tuning.db", 0) == 2 * TRIALS

    # The device is gone by now: who is done is not asked for it again.
    before = snapshot(tmp_path / "tuning.db", tmp_path / "copy")
    again = autotune("job", "run", "jobs.toml", "--json", folder=tmp_path, check=False)
    assert again.returncode == 1
    assert [e["state"] for e in json.loads(again.stdout)["entries"]] == ["failed", "done", "done"]
    assert snapshot(tmp_path / "tuning.db", tmp_path / "copy") == before


class Running:
    """`autotune job run` in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.told, self.table = folder / "stderr", folder / "stdout"
        with self.told.open("w") as stderr, self.table.open("w") as stdout:
            self.process = subprocess.Popen(
                command("job", "run", "jobs.toml"),
                cwd=folder,
                env={**ENVIRONMENT, MARK: self.mark},
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def end(self, number: int) -> int:
        """Signal it, alone; its exit code, once all that it started is gone."""
        os.kill(self.process.pid, number)
        code = self.process.wait(timeout=60)
        assert wait_for(lambda: not marked(self.mark), 15), marked(self.mark)
        return code


@needs_proc
def test_a_job_that_is_stopped_and_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    for name, width in (("first", 8), ("second", 16)):
        layers(tmp_path / f"{name}.onnx", (width, 32))
    (tmp_path / "jobs.toml").write_text(
        """
        trials = 6
        [[models]]
        path = "first.onnx"
        trials = 3
        [[models]]
        path = "second.onnx"
        [[targets]]
        name = "here"
        threads = 1
        """
    )
    database = tmp_path / "tuning.db"

    def look() -> Rows:
        return snapshot(database, tmp_path / "copy")

    def status() -> tuple[int | None, list[str]]:
        found = job_status(tmp_path / "jobs.toml")
        return found.process, [entry.state for entry in found.entries]

    running = Running(tmp_path)
    assert wait_for(lambda: count(database, 0) == 4, 120, running.process), running.told.read_text()
    assert running.end(signal.SIGINT) == 130, running.told.read_text()
    told = running.told.read_text()
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("Interrupted: everything measured so far is in")
    assert "interrupted" in running.table.read_text(), "it ends with the table"
    assert states(tmp_path) == ["done", "interrupted"]
    kept = look()

    running = Running(tmp_path)
    assert wait_for(lambda: count(database, 0) == 5, 120, running.process), running.told.read_text()
    assert status() == (running.process.pid, ["done", "at work"])
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert status() == (None, ["done", "interrupted"])
    stored = look()
    assert {number: stored.get(number) for number in kept} == kept
    kept = stored

    done = autotune("job", "run", "jobs.toml", folder=tmp_path)
    assert "first on here (1 of 2): it was done before" in done.stderr
    assert states(tmp_path) == ["done", "done"]
    assert [entry["trials"] for entry in summary(tmp_path).values()] == [3, 6]
    stored = look()
    assert {number: stored.get(number) for number in kept} == kept
    assert count(database, 0) == 9, "nothing was measured twice"
