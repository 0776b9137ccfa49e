"""What the whole model takes, told before all of its tasks were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.search.budget import Budget
from autotune.search.estimates import by_rates, from_database
from autotune.search.loop import tune_tasks
from autotune.search.progress import Progress
from autotune.search.settings import SearchSettings
from autotune.testing.landscape import TARGET, latency, make_task
from autotune.testing.runners import AnalyticRunner

TASKS = [make_task("a1", calls=4), make_task("b2", extent=32), make_task("c3", kind="softmax")]


@pytest.mark.usefixtures("landscape", "small_pool")
def test_the_whole_model_is_told_from_the_first_measurement_on(database):
    seen: list[Progress] = []
    runner = AnalyticRunner(TARGET, latency)
    settings = SearchSettings(budget=Budget(40))
    summary = tune_tasks(TASKS, TARGET, runner, database, settings, seen.append)
    first, last = seen[0], seen[-1]
    assert first.estimated and first.tasks_measured == 1
    # The estimate is of the same size as what is measured once each task was.
    begun = next(state for state in seen if not state.estimated)
    assert 0.1 * begun.latency < first.latency < 10 * begun.latency
    assert not last.estimated and last.latency == pytest.approx(summary.latency)
    measured = [s.latency for s in seen if not s.estimated and s.stage == "search"]
    assert measured == sorted(measured, reverse=True)


def test_a_task_is_as_far_from_the_best_rates_as_most_are() -> None:
    known = [(replace(TASKS[0], flops=1e6, bytes=1000), 1e-3)]
    known += [(replace(TASKS[1], flops=1e3, bytes=1_000_000), 1e-3)]
    new = replace(TASKS[2], flops=4e6, bytes=1000)
    assert by_rates([new], known) == {"c3": pytest.approx(4e-3)}
    assert by_rates([new], []) == {}


def test_a_database_that_knows_little_estimates_nothing(database) -> None:
    assert from_database(TASKS, TARGET, database) == {}
    assert from_database([], TARGET, database) == {}
