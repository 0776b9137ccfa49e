"""Ctrl-C ends a tuner at once, whatever it is doing; it says what is kept, and that is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.models import ENVIRONMENT, autotune, command, layers
from tests.end_to_end.processes import MARK, count, marked, needs_proc, snapshot, wait_for

TRIALS = 8
SECONDS = 10.0
"""Two are promised; a test machine may be busy with other things."""

pytestmark = needs_proc


class Tuner:
    """`autotune tune` in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "tuning.db"
        self.told = folder / "stderr"
        self.mark = uuid.uuid4().hex
        self.words = ["tune", layers(folder / "layers.onnx"), "--trials", TRIALS]
        self.words += ["--threads", 1, "--db", self.database, "--output", folder / "artifact"]
        with self.told.open("w") as stderr:
            self.process = subprocess.Popen(
                command(*self.words),
                env={**ENVIRONMENT, MARK: self.mark},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def says(self, words: str) -> bool:
        return words in self.told.read_text()

    def interrupt(self, send: Callable[[int, int], None]) -> str:
        """Send Ctrl-C and check how it ends; returns its last line."""
        before = self.told.read_text()
        begun = time.monotonic()
        send(self.process.pid, signal.SIGINT)
        code = self.process.wait(timeout=60)
        took = time.monotonic() - begun
        said = self.told.read_text()
        assert code == 130, said
        assert "Traceback" not in said
        assert took < SECONDS
        assert wait_for(lambda: not marked(self.mark), 5), "a process is left behind"
        (last,) = [line for line in said[len(before) :].splitlines() if "Interrupted" in line]
        assert said.splitlines()[-1] == last
        return last


def at_once(tuner: Tuner) -> bool:
    return tuner.says("importing")


def comparing(tuner: Tuner) -> bool:
    return tuner.says("comparing the import")


def starting(tuner: Tuner) -> bool:
    return tuner.says("searching schedules")


def searching(tuner: Tuner) -> bool:
    return count(tuner.database, 0) > 1


def in_finals(tuner: Tuner) -> bool:
    return count(tuner.database, 0) == TRIALS


@pytest.mark.parametrize(
    ("moment", "send"),
    [
        (at_once, os.killpg),
        (comparing, os.kill),
        (starting, os.killpg),
        (searching, os.kill),
        (in_finals, os.killpg),
    ],
    ids=lambda value: value.__name__,
)
def test_interrupted(
    tmp_path: Path, moment: Callable[[Tuner], bool], send: Callable[[int, int], None]
) -> None:
    tuner = Tuner(tmp_path)
    assert wait_for(lambda: moment(tuner), 60, tuner.process), tuner.told.read_text()
    known = count(tuner.database, 0)
    last = tuner.interrupt(send)
    assert any(
        words in last
        for words in ("is kept", "nothing is kept", "in the database", f"in {tuner.database}")
    )
    assert not (tmp_path / "artifact").exists()
    kept = snapshot(tuner.database, tmp_path / "copy")
    assert len(kept) >= known, "what was measured is there, and the file is sound"
    if moment is searching:
        continued = json.loads(autotune(*tuner.words, "--json").stdout)
        assert continued["trials"]["all"] == TRIALS
        assert continued["trials"]["new"] == TRIALS - len(kept)
        stored = snapshot(tuner.database, tmp_path / "copy")
        assert {key: stored.get(key) for key in kept} == kept
