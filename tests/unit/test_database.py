"""Records survive as they were written, the best is the right one, and nothing is doubled."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.measure.outcome import (
    KINDS,
    BuildFailed,
    Crashed,
    Invalid,
    TimedOut,
    WrongResult,
)
from autotune.search.recording import target_row, workload_row
from tests.unit.database_samples import (
    OTHER_TARGET,
    OTHER_TASK,
    TARGET,
    TASK,
    candidate,
    matmul,
    measured,
    open_with_run,
    record,
)
from tuning_db.database import TuningDatabase
from tuning_db.errors import DuplicateRecord, InvalidRow, UnknownReference
from tuning_db.records import Record, TaskRow
from tuning_db.rows import OUTCOMES

WORKLOAD = TASK.workload.key

FAILURES = (
    BuildFailed("build", "LLVM refused"),
    Crashed("run", 11, "segmentation fault"),
    TimedOut("build", 10.0),
    WrongResult(0.5, 1e-5, "half of it is garbage"),
    Invalid("tile 7 does not divide 128"),
)


def test_every_kind_of_outcome_can_be_stored_and_comes_back(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    outcomes = (measured(1e-3), *FAILURES)
    with database:
        stored = [database.add(record(k, out, run)) for k, out in enumerate(outcomes)]
    with TuningDatabase.open(tmp_path / "tuning.db", create=False, read_only=True) as database:
        assert list(database.records()) == stored
        assert [row.outcome for row in stored] == [outcome.kind for outcome in outcomes]
    assert {out.kind for out in outcomes} == set(KINDS) == set(OUTCOMES)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FINITE = st.floats(min_value=1e-12, max_value=1e6)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TuningDatabase]:
    """A database for examples that do not mind the records of each other's runs."""
    database, _ = open_with_run(tmp_path_factory.mktemp("shared") / "tuning.db")
    with database:
        yield database


@settings(max_examples=40, deadline=None)
@given(
    parameters=st.dictionaries(TEXTS, st.booleans() | st.integers() | FINITE | TEXTS, max_size=4),
    space=TEXTS.filter(bool),
    seconds=FINITE,
    samples=st.lists(FINITE, max_size=30),
    error=st.floats(min_value=0, allow_nan=False) | st.none(),
    trace=TEXTS,
)
def test_a_record_comes_back_as_it_was_written(
    shared: TuningDatabase,
    parameters: dict[str, bool | int | float | str],
    space: str,
    seconds: float,
    samples: list[float],
    error: float | None,
    trace: str,
) -> None:
    given_record = replace(
        record(1, measured(seconds), shared.begin_run(TARGET.digest)),
        space=space,
        parameters=json.dumps(parameters),
        samples=tuple(samples),
        error=error,
        trace=trace,
    )
    stored = shared.add(given_record)
    assert shared.record(stored.id or 0) == stored
    assert replace(stored, id=None) == given_record


def test_an_error_that_is_no_number_is_infinite(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        stored = database.add(record(1, WrongResult(math.nan, 1e-5, "NaN"), run))
        assert database.record(stored.id or 0) == stored
        assert stored.error == math.inf


def test_best_is_the_fastest_right_one_and_a_tie_goes_to_the_smaller_key(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        assert database.best(WORKLOAD, TARGET.digest) is None
        for failure_tile, failure in enumerate(FAILURES, start=100):
            database.add(record(failure_tile, failure, run))
        assert database.best(WORKLOAD, TARGET.digest) is None
        for tile, seconds in ((1, 3e-3), (2, 2e-3), (3, 2e-3), (4, 5e-3)):
            database.add(record(tile, measured(seconds), run))
        best = database.best(WORKLOAD, TARGET.digest)
        assert best is not None
        assert best.candidate == min(candidate(2).key, candidate(3).key)


def test_measured_again_outranks_measured_once(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        for tile, seconds in ((1, 1e-3), (2, 2e-3), (3, 3e-3)):
            database.add(record(tile, measured(seconds), run))
        for tile, seconds in ((2, 2.2e-3), (3, 2.1e-3), (3, 2.5e-3)):
            database.add(record(tile, measured(seconds), run, final=True))
        best = database.best(WORKLOAD, TARGET.digest)
        assert best is not None
        assert (best.candidate, best.final, best.seconds) == (candidate(3).key, True, 2.1e-3)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_leader_that_fails_when_measured_again_is_out(tmp_path: Path, failure: object) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        database.add(record(1, measured(1e-3), run))
        database.add(record(2, measured(2e-3), run))
        database.add(record(1, measured(1e-3), run, final=True))
        database.add(record(1, failure, run, final=True))  # type: ignore[arg-type]
        best = database.best(WORKLOAD, TARGET.digest)
        assert best is not None
        assert best.candidate == candidate(2).key


def test_one_target_never_answers_for_another(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        database.register_target(target_row(OTHER_TARGET))
        other_run = database.begin_run(OTHER_TARGET.digest)
        database.add(record(1, measured(1e-3), run))
        other = record(2, measured(1e-6), other_run, target=OTHER_TARGET)
        stored = database.add(other)
        best = database.best(WORKLOAD, TARGET.digest)
        assert best is not None and best.candidate == candidate(1).key
        assert database.best_for_all(OTHER_TARGET.digest) == {WORKLOAD: stored}
        assert database.measured_keys(WORKLOAD, TARGET.digest) == {candidate(1).key}


def test_a_candidate_is_measured_once_in_a_run_and_again_as_often_as_wanted(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        database.add(record(1, measured(1e-3), run))
        with pytest.raises(DuplicateRecord, match="already"):
            database.add(record(1, measured(2e-3), run))
        for _ in range(3):
            database.add(record(1, measured(1e-3), run, final=True))
        assert database.count() == 4
        assert database.count(final=False) == 1
        row = database.run(run)
        assert row is not None and row.trials_done == 1
        later = database.begin_run(TARGET.digest)
        database.add(record(1, measured(1e-3), later))
        assert database.measured_keys(WORKLOAD, TARGET.digest) == {candidate(1).key}


def test_a_record_of_nothing_that_is_known_is_refused(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        good = record(1, measured(1e-3), run)
        for field in ("workload", "target", "run"):
            with pytest.raises(UnknownReference, match="register it first"):
                database.add(replace(good, **{field: "unknown"}))
        with pytest.raises(UnknownReference):
            database.begin_run("unknown")
        with pytest.raises(UnknownReference):
            database.finish_run("unknown")
        with pytest.raises(UnknownReference):
            database.register_model("x", "x", TARGET.digest, [TaskRow("unknown", 1, 1.0, 1)])
        assert database.count() == 0
        assert [model.name for model in database.models()] == ["two-layers"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "fine"},
        {"seconds": None},
        {"seconds": 0.0},
        {"seconds": math.nan},
        {"samples": (1e-3, math.inf)},
        {"parameters": "[1]"},
        {"parameters": '{"a": NaN}'},
        {"detail": "{"},
        {"outcome": "crashed"},
        {"run": ""},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        with pytest.raises(InvalidRow):
            database.add(replace(record(1, measured(1e-3), run), **wrong))  # type: ignore[arg-type]
        assert database.count() == 0


def test_reading_goes_on_while_the_same_connection_writes(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        with database.transaction():
            for tile in range(700):
                database.add(record(tile, measured(1e-3), run))
        seen = 0
        for row in database.records(WORKLOAD):
            seen += 1
            if seen <= 20:
                database.add(replace(row, candidate=f"new{seen}", id=None))
        assert seen == 700
        assert database.count() == 720
        assert [row.id for row in database.records(last=2)] == [719, 720]


def test_stats_speak_of_models(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        database.add(record(1, measured(1e-3), run))
        database.add(record(2, FAILURES[0], run))
        database.finish_run(run)
        stats = database.stats()
    assert stats.outcomes == {"build_failed": 1, "measured": 1}
    assert (stats.records, stats.workloads, stats.runs, stats.unfinished_runs) == (2, 2, 1, 0)
    (model,) = stats.models
    assert (model.name, model.tasks, model.tuned, model.calls) == ("two-layers", 2, 1, 6)
    assert model.seconds == pytest.approx(3e-3)
    assert model.flops == 3 * (TASK.flops + OTHER_TASK.flops)


def test_the_views_answer_what_people_ask(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        for tile, seconds in ((1, 3e-3), (2, 1e-3), (3, 2e-3)):
            database.add(record(tile, measured(seconds), run))
        database.add(record(4, FAILURES[1], run))
        rows = database.connection.execute(
            "SELECT workload_name, target_model, microseconds, candidates, failed, record"
            " FROM best_per_task"
        ).fetchall()
        assert rows == [("matmul128", "EPYC 7601", 1000.0, 4, 1, 2)]
        rows = database.connection.execute(
            "SELECT trial, best_microseconds FROM tuning_progress ORDER BY trial"
        ).fetchall()
        assert rows == [(1, 3000.0), (2, 1000.0), (3, 1000.0), (4, 1000.0)]
        rows = database.connection.execute(
            "SELECT outcome, stage, records, example FROM failures_by_cause"
        ).fetchall()
        assert rows == [("crashed", "run", 1, "segmentation fault")]


def test_the_best_record_is_found_through_the_index_alone(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database, database.transaction():
        for tile in range(3000):
            database.insert(replace(record(tile, measured(1e-3 + tile * 1e-9), run), time="t"), 0)
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        database.connection.set_progress_handler(step, 1)
        best = database.best(WORKLOAD, TARGET.digest)
        database.connection.set_progress_handler(None, 0)
        assert best is not None and best.candidate == candidate(0).key
        # Instructions of SQLite's machine: a search of the 3000 would take 3000 and more.
        assert steps < 1000


def test_traces_are_stored_once(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        database.add(record(1, measured(1e-3), run))
        for _ in range(5):
            stored = database.add(record(1, measured(1e-3), run, final=True))
        rows = database.connection.execute("SELECT length(text) FROM traces").fetchall()
        assert len(rows) == 1
        assert rows[0][0] < len(stored.trace) / 4


# Several processes


def _write(path: Path, worker: int, count: int) -> None:
    with TuningDatabase.open(path) as database:
        run = database.begin_run(TARGET.digest)
        for number in range(count):
            database.add(record(worker * 1000 + number, measured(1e-3), run))


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    open_with_run(path)[0].close()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, k, 60)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with TuningDatabase.open(path, create=False) as database:
        expected = {candidate(k * 1000 + n).key for k in range(4) for n in range(60)}
        assert database.measured_keys(WORKLOAD, TARGET.digest) == expected
        assert database.count() == 240
        assert [run.trials_done for run in database.runs()] == [0, 60, 60, 60, 60]


def _create(path: Path) -> None:
    with TuningDatabase.open(path) as database:
        database.register(workload_row(matmul(os.getpid())))


def test_processes_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round_ in range(10):  # a race shows up now and then only
        path = tmp_path / f"tuning{round_}.db"
        workers = [context.Process(target=_create, args=(path,)) for _ in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0] * 6
        with TuningDatabase.open(path, create=False, read_only=True) as database:
            assert len(database.workloads()) == 6


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from tests.unit.database_samples import measured, open_with_run, record

    database, run = open_with_run(Path(sys.argv[1]))
    for tile in range(int(sys.argv[2]), 1_000_000):
        stored = database.add(record(tile, measured(1e-3), run))
        print(stored.candidate, flush=True)
    """
)


def test_a_killed_writer_keeps_every_acknowledged_record(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    acknowledged: list[str] = []
    for turn, stop_after in enumerate((1, 17, 60)):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(turn * 100_000)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline().strip() for _ in range(stop_after)]
            writer.send_signal(signal.SIGKILL)
            # What was printed between the last line read and the kill was acknowledged too.
            lines += [line.strip() for line in writer.stdout if line.endswith("\n")]
        assert writer.returncode == -signal.SIGKILL
        acknowledged += lines
    with TuningDatabase.open(path, create=False) as database:
        kept = [row.candidate for row in database.records()]
        assert database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert sum(run.trials_done for run in database.runs()) == len(kept)
    assert len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept)
    assert len(kept) - len(acknowledged) <= 3  # the one in flight at each kill


def test_plain_sqlite_reads_the_file(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "tuning.db")
    with database:
        stored: Record = database.add(record(1, measured(1e-3), run))
    connection = sqlite3.connect(tmp_path / "tuning.db")
    row = connection.execute("SELECT parameters, seconds, length(samples) FROM records").fetchone()
    connection.close()
    assert row == (stored.parameters, 1e-3, 8 * len(stored.samples))
