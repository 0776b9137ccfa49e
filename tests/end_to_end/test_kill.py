"""A tuner that is killed loses nothing, repeats nothing and leaves no process behind."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.end_to_end.models import ENVIRONMENT, autotune, command, layers
from tests.end_to_end.processes import MARK, Rows, count, marked, needs_proc, snapshot, wait_for

TRIALS = 48
KILLS = 10

pytestmark = needs_proc


@pytest.mark.timeout(900)
def test_a_killed_tuner_is_continued_where_it_was(tmp_path: Path) -> None:
    model, database = layers(tmp_path / "layers.onnx"), tmp_path / "tuning.db"
    words = ["tune", model, "--trials", TRIALS, "--threads", 1, "--db", database]
    rng = random.Random(2)
    kept: Rows = {}
    workers_seen = 0
    moments = []
    for kill in range(KILLS):
        mark = uuid.uuid4().hex
        before = count(database, 0)
        process = subprocess.Popen(
            command(*words),
            env={**ENVIRONMENT, MARK: mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Some die by the clock, at the first measurement at the latest, which is while they start
        # up; most once they measured a little; the last one in the finals, which begin when the
        # trials are used up.
        new = rng.choice([0, 0, 1, 2, 3])
        if kill == KILLS - 1:
            reached = wait_for(lambda: count(database, 0) == TRIALS, 200, process)
        elif new:
            reached = wait_for(lambda b=before, n=new: count(database, 0) >= b + n, 100, process)
            time.sleep(rng.uniform(0.0, 0.1))
        else:
            wait_for(lambda b=before: count(database, 0) > b, rng.uniform(0.1, 8.0), process)
            reached = True
        alive = marked(mark)
        workers_seen += len(alive - {process.pid})
        # The tuner alone: its workers have to see for themselves that it is gone.
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        gone = wait_for(lambda m=mark: not marked(m), 15)
        assert gone, f"left behind by kill {kill}: {marked(mark)}"
        assert reached
        stored = snapshot(database, tmp_path / "copy")
        assert {i: stored.get(i) for i in kept} == kept, f"changed after kill {kill}"
        moments.append(len(stored) - len(kept))
        kept = stored
    assert workers_seen > 0, "no worker was ever alive at a kill: this shows nothing"
    assert len(kept) >= TRIALS, "the last kill was in the finals"

    last = json.loads(autotune(*words, "--json").stdout)
    assert last["stopped"] == "budget"
    assert last["trials"]["all"] == TRIALS
    stored = snapshot(database, tmp_path / "copy")
    assert {i: stored.get(i) for i in kept} == kept
    connection = sqlite3.connect(database)
    try:
        doubled = connection.execute(
            "SELECT workload, target, candidate, COUNT(*) FROM records WHERE final = 0 "
            "GROUP BY workload, target, candidate HAVING COUNT(*) > 1"
        ).fetchall()
        measured = connection.execute("SELECT COUNT(*) FROM records WHERE final = 0").fetchone()
        killed = connection.execute("SELECT COUNT(*) FROM runs WHERE finished IS NULL").fetchone()
    finally:
        connection.close()
    assert doubled == []
    assert measured == (TRIALS,), moments
    assert 0 < killed[0] <= KILLS
