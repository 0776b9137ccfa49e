"""The search on the real runner: real builds, real times, verified results."""

from __future__ import annotations

import pytest

from autotune.measure.local import LocalRunner
from autotune.search.budget import Budget
from autotune.search.loop import tune_tasks
from autotune.search.settings import SearchSettings
from search_spaces.registry import unregister
from search_spaces.scheduling import replay
from search_spaces.task import Task
from tests.compiler.measuring import host, matmul
from tuning_db.database import TuningDatabase


@pytest.fixture
def task(monkeypatch):
    from search_spaces import registry
    from tests.compiler import search_plugin
    from tests.compiler.search_plugin import Loops

    # Of this space alone every point can be measured: what is installed stays out.
    monkeypatch.setattr(registry, "usable", lambda kind: ())
    search_plugin.register(Loops())
    made = matmul(128, 128, 128)
    yield Task(made.workload, 1, 2.0 * 128**3, made.bytes)
    unregister(Loops.name)


def test_a_matmul_is_tuned_recorded_and_continued(task, tmp_path):
    target = host()
    plugins = ["tests.compiler.search_plugin"]
    with (
        TuningDatabase.open(tmp_path / "tuning.db") as database,
        LocalRunner(target, plugins=plugins) as runner,
    ):
        half = SearchSettings(budget=Budget(8), rounds=0)
        first = tune_tasks([task], target, runner, database, half)
        assert (first.new, first.stopped) == (8, "budget")
        assert first.failures == {}
        again = tune_tasks([task], target, runner, database, SearchSettings(budget=Budget(40)))
        # The space has 20 points: each was measured once, in one run or the other.
        assert (again.new, again.done, again.stopped) == (12, 20, "converged")
        looks = [record.candidate for record in database.records(final=False)]
        assert len(set(looks)) == len(looks) == 20
        (result,) = again.tasks
        assert result.tuned and result.final
        # Vectorised loops against scalar ones with a stride: far beyond any noise.
        assert result.seconds < 0.5 * result.default_seconds
        best = database.best(task.workload.key, target.digest)
        assert best.candidate == result.winner.key
        assert replay(task, target, best.trace).trace == best.trace
