from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace

import pytest

from autotune.errors import InputError
from autotune.measure.outcome import Crashed, Measured, WrongResult
from autotune.search.budget import Budget
from autotune.search.finals import judge
from autotune.search.loop import RunnerFault, tune_tasks
from autotune.search.progress import Progress
from autotune.search.settings import SearchSettings
from autotune.search.study import Patience
from autotune.testing.landscape import TARGET, latency, make_task
from autotune.testing.runners import AnalyticRunner
from autotune.turns import rounds_in_turn
from search_spaces import registry
from search_spaces.task import Candidate, Task
from tuning_db.database import TuningDatabase
from tuning_db.records import ModelRow

TASKS = [make_task("a1", calls=4), make_task("b2", extent=32), make_task("c3", kind="softmax")]


pytestmark = pytest.mark.usefixtures("landscape", "small_pool")


def settings(trials: int | None, **more) -> SearchSettings:
    return SearchSettings(budget=Budget(trials), **more)


def first_looks(database) -> list[tuple[str, str]]:
    return [(r.workload, r.candidate) for r in database.records(final=False)]


def test_uses_the_budget_measures_nothing_twice_and_improves(database):
    runner = AnalyticRunner(TARGET, latency)
    seen: list[Progress] = []
    summary = tune_tasks(TASKS, TARGET, runner, database, settings(80), seen.append)
    assert summary.stopped == "budget" and summary.done == summary.new == 80
    looks = first_looks(database)
    assert len(looks) == len(set(looks)) == 80
    assert summary.latency < 0.75 * summary.baseline
    assert [r.tuned for r in summary.tasks] == [True, True, False]
    assert summary.tasks[2].winner.space == "plain" and summary.tasks[2].reason == "exhausted"
    assert not runner.closed
    assert database.run(summary.run).finished is not None


def test_every_default_is_measured_before_anything_is_searched(database):
    runner = AnalyticRunner(TARGET, latency)
    tune_tasks(TASKS, TARGET, runner, database, settings(5))
    defaults = {registry.default_candidate(t, TARGET).key for t in TASKS}
    assert {c.key for _, c in runner.measured[:3]} == defaults
    assert {t.workload.key for t, _ in runner.measured[:3]} == {"a1", "b2", "c3"}


def test_each_measurement_is_recorded_before_the_next_is_asked_for(database):
    def watched(task: Task, candidate: Candidate) -> float:
        if not finals:
            assert database.count(final=False) == len(runner.measured) - 1
        return latency(task, candidate)

    finals: list[Progress] = []
    runner = AnalyticRunner(TARGET, watched)
    tune_tasks(TASKS, TARGET, runner, database, settings(20, rounds=0))
    assert database.count() == 20


def test_the_same_command_again_continues_with_what_is_left(database):
    one = tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(20))
    two = tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(50))
    assert (one.new, two.new, two.done) == (20, 30, 50)
    looks = first_looks(database)
    assert len(looks) == len(set(looks)) == 50
    runner = AnalyticRunner(TARGET, latency)
    three = tune_tasks(TASKS, TARGET, runner, database, settings(50))
    assert three.new == 0 and runner.measured == []  # not even the finals
    assert three.stopped == "budget" and three.latency == pytest.approx(two.latency)


def test_the_runner_remembers_what_earlier_runs_measured(database):
    class Remembering(AnalyticRunner):
        remembered = ()

        def remember(self, task, measurements):
            found = [(task.workload.key, m.candidate.key, m.outcome.seconds) for m in measurements]
            self.remembered = (*self.remembered, *found)

    def sometimes(task: Task, candidate: Candidate) -> float | Crashed:
        if candidate.key[0] in "0123":
            return Crashed("run", 11, "SIGSEGV")
        return latency(task, candidate)

    tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, sometimes), database, settings(40))
    runner = Remembering(TARGET, sometimes)
    tune_tasks(TASKS, TARGET, runner, database, settings(41))
    told = [
        (r.workload, r.candidate, r.seconds) for r in database.records(final=False) if r.seconds
    ]
    assert sorted(runner.remembered) == sorted(told[:-1])


def test_interrupted_anywhere_everything_measured_is_kept(database):
    def interrupted(task: Task, candidate: Candidate) -> float:
        if len(runner.measured) == 11:
            raise KeyboardInterrupt
        return latency(task, candidate)

    runner = AnalyticRunner(TARGET, interrupted)
    summary = tune_tasks(TASKS, TARGET, runner, database, settings(40))
    assert summary.stopped == "interrupted" and summary.new == 10
    assert "continues" in summary.message
    again = tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(40))
    assert again.new == 30
    looks = first_looks(database)
    assert len(looks) == len(set(looks)) == 40


def test_a_fault_of_the_runner_is_raised_and_what_was_measured_is_kept(database):
    def broken(task: Task, candidate: Candidate) -> float:
        if len(runner.measured) == 7:
            raise OSError("the board is gone")
        return latency(task, candidate)

    runner = AnalyticRunner(TARGET, broken)
    with pytest.raises(OSError, match="board"):
        tune_tasks(TASKS, TARGET, runner, database, settings(40))
    assert database.count() == 6


def test_a_runner_that_loses_candidates_is_told_so(database):
    class Lossy(AnalyticRunner):
        def run(self, task, candidates):
            yield from super().run(task, candidates[:-1])

    with pytest.raises(RunnerFault, match="0 measurements of 1"):
        tune_tasks(TASKS, TARGET, Lossy(TARGET, latency), database, settings(10))


def test_stops_with_the_reason_when_the_first_candidates_of_everything_fail(database):
    runner = AnalyticRunner(TARGET, lambda t, c: Crashed("run", 4, "illegal instruction"))
    summary = tune_tasks(TASKS, TARGET, runner, database, settings(200))
    assert summary.stopped == "all_failed" and summary.new == 8
    assert "illegal instruction" in summary.message and "8 crashed" in summary.message
    assert summary.failures == {"crashed": 8}
    # The cause removed, the same command works again; a second look at a task is not refused.
    again = tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(60))
    assert again.stopped == "budget" and again.done == 60


def test_a_task_that_only_fails_is_set_aside(database):
    def half(task: Task, candidate: Candidate):
        return Crashed("run", 11, "x") if task.workload.key == "a1" else latency(task, candidate)

    runner = AnalyticRunner(TARGET, half)
    summary = tune_tasks(TASKS, TARGET, runner, database, settings(60, give_up=6))
    broken = summary.tasks[0]
    assert (broken.reason, broken.trials, broken.winner) == ("set aside", 6, None)
    assert summary.done == 60 and summary.tasks[1].tuned


def test_ends_when_everything_has_converged(database):
    summary = tune_tasks(
        TASKS, TARGET, AnalyticRunner(TARGET, latency), database,
        settings(None, patience=Patience(window=10, least=20)),
    )  # fmt: skip
    assert summary.stopped == "converged"
    assert {r.reason for r in summary.tasks} <= {"converged", "exhausted"}


def test_a_time_budget_ends_the_search(database):
    run = SearchSettings(budget=Budget(seconds=0.0))
    runner = AnalyticRunner(TARGET, latency)
    assert tune_tasks(TASKS, TARGET, runner, database, run).stopped == "time"
    assert runner.measured == []
    # With endless patience, or a fast machine has converged before.
    some = SearchSettings(budget=Budget(seconds=0.5), patience=Patience(least=10**6))
    summary = tune_tasks(TASKS[:1], TARGET, runner, database, some)
    assert summary.stopped == "time" and summary.new > 0


def test_the_default_wins_unless_beaten_beyond_the_noise(database):
    def flat(task: Task, candidate: Candidate) -> float:
        return 1e-3

    runner = AnalyticRunner(TARGET, flat, noise=0.02, seed=3)
    summary = tune_tasks(TASKS[:2], TARGET, runner, database, settings(40))
    assert any(study.final for study in summary.tasks)  # some looked faster, by luck
    assert not any(result.tuned for result in summary.tasks)
    for task in TASKS[:2]:
        best = database.best(task.workload.key, TARGET.digest)
        assert best.candidate == registry.default_candidate(task, TARGET).key


def test_final_records_tell_what_was_compared(database):
    summary = tune_tasks(
        TASKS[:1], TARGET, AnalyticRunner(TARGET, latency, noise=0.01), database, settings(30)
    )
    (final,) = database.records(final=True)
    detail = json.loads(final.detail)
    assert final.candidate == summary.tasks[0].winner.key
    assert registry.default_candidate(TASKS[0], TARGET).key in detail["finals"]
    assert len(final.samples) == 3 * 5
    assert summary.tasks[0].seconds == final.seconds == detail["finals"][final.candidate]


def test_a_leader_that_is_wrong_when_looked_at_again_is_out(database):
    looks: dict[str, int] = {}

    def racy(task: Task, candidate: Candidate):
        looks[candidate.key] = looks.get(candidate.key, 0) + 1
        if looks[candidate.key] > 1 and candidate.parameters.get("packed"):
            return WrongResult(1.0, 1e-5, "differs from itself")
        return latency(task, candidate)

    summary = tune_tasks(
        TASKS[:1], TARGET, AnalyticRunner(TARGET, racy), database, settings(40, finalists=4)
    )
    assert database.count(outcome="wrong_result", final=True) >= 1
    assert not summary.tasks[0].winner.parameters.get("packed")
    # Those that move up in their place are looked at in turn, those that are out never again.
    out = {r.candidate for r in database.records(outcome="wrong_result")}
    runner = AnalyticRunner(TARGET, racy)
    tune_tasks(TASKS[:1], TARGET, runner, database, settings(40, finalists=4))
    assert not {c.key for _, c in runner.measured} & out


def test_finals_are_measured_in_turn():
    a, b, c = (Candidate(name, 1, {}) for name in "abc")
    assert rounds_in_turn([a, b, c], 3) == [[a, b, c], [b, c, a], [c, a, b]]


def test_equal_leaders_are_told_apart_by_a_fixed_rule():
    from autotune.measure.base import Measurement

    default, one, two = (Candidate(name, 1, {}) for name in ("default", "one", "two"))

    def looks(*seconds: float, of: Candidate) -> list[Measurement]:
        return [Measurement(of, Measured(s, (s,), 0.0, 1.0), "", {}) for s in seconds]

    for fast, slow in ((one, two), (two, one)):
        verdict = judge(
            default,
            {
                default.key: looks(2.0, 2.0, 2.0, of=default),
                fast.key: looks(1.0, 1.0, 1.0, of=fast),
                slow.key: looks(1.005, 1.004, 1.005, of=slow),
            },
        )
        assert verdict.winner.key == min(one.key, two.key)


def test_progress_tells_the_whole_model(database):
    seen: list[Progress] = []
    model = ModelRow("digest", "a model")
    runner = AnalyticRunner(TARGET, latency)
    tune_tasks(TASKS, TARGET, runner, database, settings(30), seen.append, model=model)
    search = [p for p in seen if p.stage == "search"]
    assert [p.done for p in search] == list(range(1, 31))
    assert search[0].tasks_measured == 1 and search[-1].tasks_measured == 3
    default = sum(t.calls * latency(t, registry.default_candidate(t, TARGET)) for t in TASKS)
    assert search[-1].baseline == pytest.approx(default)
    assert search[-1].latency < default
    assert all(p.left is not None and math.isfinite(p.left) for p in search)
    assert database.tasks("digest", TARGET.digest)


def test_an_unknown_sampler_leaves_the_database_as_it_was(database):
    with pytest.raises(InputError):
        tune_tasks(
            TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(5, sampler="gp")
        )
    assert database.runs() == []


@pytest.mark.parametrize("sampler", ["cost-model", "tpe", "random"])
def test_same_seed_and_same_times_give_the_same_search(tmp_path, sampler):
    def keys(name: str, seed: int) -> list[tuple[str, str]]:
        with TuningDatabase.open(tmp_path / name) as opened:
            run = settings(40, sampler=sampler, seed=seed)
            tune_tasks(TASKS, TARGET, AnalyticRunner(TARGET, latency), opened, run)
            return first_looks(opened)

    first = keys("1.db", 1)
    assert keys("2.db", 1) == first
    assert keys("3.db", 2) != first


def test_the_cost_model_beats_random_in_the_loop(tmp_path):
    found: dict[str, list[float]] = {"cost-model": [], "random": []}
    for seed in range(5):
        for sampler, best in found.items():
            with TuningDatabase.open(tmp_path / f"{sampler}{seed}.db") as opened:
                runner = AnalyticRunner(TARGET, latency, noise=0.02, seed=seed)
                run = settings(48, sampler=sampler, seed=seed, rounds=0)
                summary = tune_tasks([TASKS[0]], TARGET, runner, opened, run)
                # By the formula, not by the noisy times that it was chosen by.
                best.append(latency(TASKS[0], summary.tasks[0].winner))
    assert statistics.mean(found["cost-model"]) < 0.9 * statistics.mean(found["random"])


def test_it_ends_when_the_model_is_as_fast_as_was_asked_for(database):
    calls = sum(task.calls for task in TASKS)
    assert calls == 6
    summary = tune_tasks(
        TASKS, TARGET, AnalyticRunner(TARGET, latency), database, settings(500, until=17e-3)
    )
    assert summary.stopped == "reached"
    assert summary.latency <= 17e-3
    assert summary.new < 400
    assert all(task.seconds for task in summary.tasks)


def test_a_goal_that_only_lucky_first_looks_reach_is_not_reached(database):
    class Lucky(AnalyticRunner):
        """First looks seem twice as fast as they are."""

        def run(self, task, candidates):
            for found in super().run(task, candidates):
                key = found.candidate.key
                again = sum(candidate.key == key for _, candidate in self.measured) > 1
                if isinstance(found.outcome, Measured) and not again:
                    samples = tuple(s / 2 for s in found.outcome.samples)
                    outcome = replace(found.outcome, seconds=min(samples), samples=samples)
                    found = replace(found, outcome=outcome)
                yield found

    runner = Lucky(TARGET, latency)
    summary = tune_tasks(TASKS[:2], TARGET, runner, database, settings(60, until=4e-3))
    assert summary.stopped == "budget"
    assert summary.latency > 4e-3


def test_a_goal_is_reached_when_the_whole_model_is_fast_enough_not_its_tasks_alone(database):
    taken = [1.05, 1.5, 0.99]
    sums = []

    def whole():
        winners = [database.best(task.workload.key, TARGET.digest) for task in TASKS]
        sums.append(sum(t.calls * w.seconds for t, w in zip(TASKS, winners, strict=True)))
        return taken[len(sums) - 1]

    summary = tune_tasks(
        TASKS,
        TARGET,
        AnalyticRunner(TARGET, latency),
        database,
        settings(500, until=25e-3),
        whole=whole,
    )
    assert summary.stopped == "reached"
    assert len(sums) == 3
    assert sums[0] <= 25e-3
    # What the whole model takes longer than its tasks has to be gained by the tasks.
    assert sums[1] <= sums[0] / 1.05
    assert sums[2] <= sums[1] / 1.1
