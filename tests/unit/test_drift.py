"""A disturbed machine: it shows, is told, and what it spoilt is measured again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured
from autotune.search.budget import Budget
from autotune.search.drift import DriftLog
from autotune.search.loop import tune_tasks
from autotune.search.recording import task_from, workload_row
from autotune.search.settings import SearchSettings
from autotune.search.verification import verify
from autotune.testing.landscape import TARGET, latency, make_task
from autotune.testing.runners import AnalyticRunner
from search_spaces.task import Candidate, Task
from tests.unit.database_samples import TASK as MATMUL
from tuning_db.database import TuningDatabase
from tuning_db.drift import disturbed, undisturbed

TASKS = [make_task("a1", calls=4), make_task("b2", extent=32)]
QUIET = 1e-3
"""Seconds of the fixed kernel on the undisturbed machine."""


class SharedMachine(AnalyticRunner):
    """From measurement ``begin`` to ``end`` everything takes ``factor`` times as long.

    So does the fixed kernel, unless ``drift`` says what it takes.
    """

    drift: float | None = None

    def __init__(self, begin: int = 0, end: int = 0, factor: float = 1.0) -> None:
        super().__init__(TARGET, latency)
        self.begin, self.end, self.factor = begin, end, factor

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        for found in super().run(task, candidates):
            slow = self.factor if self.begin <= len(self.measured) <= self.end else 1.0
            outcome = found.outcome
            if isinstance(outcome, Measured):
                samples = tuple(s * slow for s in outcome.samples)
                outcome = replace(outcome, seconds=min(samples), samples=samples)
            yield replace(found, outcome=outcome, drift_seconds=self.drift or QUIET * slow)


pytestmark = pytest.mark.usefixtures("landscape")


def tune(database, runner, trials=40):
    chosen = SearchSettings(budget=Budget(trials), sampler="random")
    return tune_tasks(TASKS, TARGET, runner, database, chosen)


def test_a_quiet_machine_is_not_reported(database):
    summary = tune(database, SharedMachine())
    assert (summary.drift.disturbed, summary.drift.worst) == (0, 1.0)
    assert summary.drift.warning == ""
    assert disturbed(database, TARGET.digest) == []
    assert all(json.loads(r.detail)["drift"] == 1.0 for r in database.records())


def test_a_disturbance_is_in_the_records_and_in_the_summary(database):
    summary = tune(database, SharedMachine(11, 20, 1.8))
    assert summary.drift.disturbed == 10
    assert summary.drift.worst == pytest.approx(1.8)
    assert "10 of" in summary.drift.warning and "1.8 times" in summary.drift.warning
    slowed = [r for r in database.records() if json.loads(r.detail)["drift"] > 1.7]
    assert len(slowed) == 10
    found = disturbed(database, TARGET.digest)
    assert found and {row.id for row in found} <= {r.id for r in slowed}
    assert all(row.drift == pytest.approx(1.8) for row in found)


def test_a_machine_slow_from_the_start_is_seen_in_the_light_of_earlier_runs(database):
    tune(database, SharedMachine(), trials=20)
    summary = tune(database, SharedMachine(0, 10_000, 1.5), trials=40)
    assert summary.drift.disturbed == summary.drift.measured > 0


def test_disturbed_candidates_are_measured_again_and_decided_again(database, tmp_path):
    tune(database, SharedMachine(5, 30, 3.0))
    with TuningDatabase.open(tmp_path / "quiet.db") as other:
        tune(other, SharedMachine())
        expected = {t: other.best(t.workload.key, TARGET.digest) for t in TASKS}
    before = len(disturbed(database, TARGET.digest))
    runner = SharedMachine()
    done = verify(database, TARGET, runner)
    assert (done.found, done.repeated, done.still, done.skipped) == (before, before, 0, ())
    assert disturbed(database, TARGET.digest) == []
    for task, best in expected.items():
        found = database.best(task.workload.key, TARGET.digest)
        # The same draws were measured in both; only the disturbance made a difference.
        assert found.seconds <= best.seconds
    measured = len(runner.measured)
    assert verify(database, TARGET, runner).found == 0
    assert len(runner.measured) == measured


def test_a_disturbed_winner_of_finals_does_not_stay_unseen(database):
    tune(database, SharedMachine(41, 10_000, 2.0))
    finals = [r.id for r in database.records(final=True)]
    assert {row.id for row in disturbed(database, TARGET.digest)} & set(finals)
    verify(database, TARGET, SharedMachine())
    again = [r for r in database.records(final=True) if r.id not in finals]
    assert again and all(json.loads(r.detail)["drift"] == 1.0 for r in again)


def test_an_interruption_keeps_what_was_measured_again(database):
    tune(database, SharedMachine(5, 30, 3.0))
    found = len(disturbed(database, TARGET.digest))

    class Stopped(SharedMachine):
        def run(self, task, candidates):
            for measurement in super().run(task, candidates):
                if len(self.measured) > 3:
                    raise KeyboardInterrupt
                yield measurement

    done = verify(database, TARGET, Stopped())
    assert done.interrupted and done.repeated == 3
    assert len(disturbed(database, TARGET.digest)) == found - 3


def test_chosen_records_are_measured_again_and_marked(database):
    tune(database, SharedMachine(), trials=30)
    best = list(database.best_for_all(TARGET.digest).values())
    before = database.count()
    done = verify(database, TARGET, SharedMachine(), best)
    assert (done.found, done.repeated, done.broken) == (len(best), len(best), ())
    assert database.count() > before
    slow = SharedMachine(0, 10_000, 1.5)
    slow.drift = QUIET  # it is the code that got slower (a library, say), not the machine
    done = verify(database, TARGET, slow, best)
    assert {one.record for one in done.broken} == {record.id for record in best}
    assert all(one.seconds > 1.4 * one.was for one in done.broken)
    marks = database.rows("SELECT holds, microseconds / was_microseconds FROM verified")
    assert [mark for mark, _ in marks] == [0] * len(best) + [1] * len(best)
    assert all(ratio > 1.4 for mark, ratio in marks if not mark)


def test_on_a_disturbed_machine_nothing_is_known_of_a_record(database):
    tune(database, SharedMachine(), trials=30)
    best = list(database.best_for_all(TARGET.digest).values())
    done = verify(database, TARGET, SharedMachine(0, 10_000, 3.0), best)
    assert (done.still, done.broken) == (len(best), ())
    assert {mark for (mark,) in database.rows("SELECT holds FROM verified")} == {None}


def test_a_single_lucky_moment_is_not_what_all_else_is_compared_with():
    log = DriftLog([QUIET * 0.5] + [QUIET] * 50)
    assert log.note(QUIET) == pytest.approx(1.0)
    assert undisturbed(sorted([0.5, *[1.0] * 50])) == 1.0


def test_a_task_comes_back_from_its_row():
    row = workload_row(MATMUL)
    assert task_from(row, MATMUL.calls) == MATMUL
    with pytest.raises(ValueError, match="not described"):
        task_from(replace(row, description="{}"))
