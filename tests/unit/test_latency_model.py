"""Estimates of tasks that were never measured."""

from __future__ import annotations

import math
from dataclasses import replace

from autotune.testing.landscape import TARGET, make_task
from cost_models.latency import FEWEST, LatencyModel


def known(count: int):
    """Tasks whose rate grows with their extents, up to 2 GFLOP/s."""
    tasks = [make_task(f"k{extent}", extent=extent) for extent in range(8, 8 + 4 * count, 4)]
    return [(task, TARGET, seconds(task)) for task in tasks]


def seconds(task) -> float:
    extent = task.workload.blocks[0].axes[0].extent
    return task.flops / (2e9 * extent / (extent + 32))


def test_too_few_tasks_say_nothing():
    assert LatencyModel([]).estimate(make_task(), TARGET) is None
    assert LatencyModel(known(FEWEST - 1)).estimate(make_task(), TARGET) is None


def test_a_task_between_those_that_are_known_is_estimated_and_its_least_is_below():
    model = LatencyModel(known(48))
    for extent in (30, 62, 110, 150):
        task = make_task("new", extent=extent)
        found = model.estimate(task, TARGET)
        assert abs(math.log2(found.seconds / seconds(task))) < 0.25
        assert found.least <= found.seconds
        assert found.least < 1.05 * seconds(task)


def test_where_times_follow_nothing_the_least_is_far_below():
    tasks = [task for task, _, _ in known(48)]
    wild = [(t, TARGET, seconds(t) * (1 + 15 * (i * 7 % 5 == 0))) for i, t in enumerate(tasks)]
    calm = LatencyModel(known(48)).estimate(tasks[10], TARGET)
    unsure = LatencyModel(wild).estimate(tasks[10], TARGET)
    assert calm.least / calm.seconds > 0.8
    assert unsure.least / unsure.seconds < 0.6


def test_copies_alone_are_estimated_too():
    copies = [(replace(task, flops=0.0), TARGET, task.bytes / 1e9) for task, *_ in known(32)]
    task = replace(make_task("new", extent=60), flops=0.0)
    found = LatencyModel(copies).estimate(task, TARGET)
    assert abs(math.log2(found.seconds * 1e9 / task.bytes)) < 0.25


def test_equal_tasks_give_equal_estimates():
    one, two = (LatencyModel(known(32)).estimate(make_task(), TARGET) for _ in range(2))
    assert one == two
