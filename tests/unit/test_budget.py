from __future__ import annotations

import math

import pytest

from autotune.search.budget import Budget, Standing, expected_gain, floors, next_task


def standing(best, *, calls=1, flops=1e6, bytes=1000, trials=10, start=None, finished=False):
    history = (start if start is not None else best,) * (trials // 2) + (best,) * (
        trials - trials // 2
    )
    return Standing(calls, flops, bytes, history, finished)


def test_every_task_is_measured_once_before_any_is_searched():
    standings = [standing(1e-3, calls=100), Standing(1, 1e3, 10), Standing(1, 1e9, 10)]
    assert next_task(standings) == 2  # the heaviest of the new ones
    standings[2] = standing(1.0, trials=1)
    assert next_task(standings) == 1


def test_trials_go_where_calls_times_time_is_greatest():
    assert next_task([standing(1e-3), standing(1e-3, calls=20)]) == 1
    assert next_task([standing(1e-3), standing(1e-2)]) == 1


def test_of_equal_tasks_the_one_that_still_improves_comes_first():
    flat, falling = standing(1e-3), standing(1e-3, start=2e-3)
    assert next_task([flat, falling]) == 1


def test_a_task_at_the_rate_of_the_best_has_less_to_gain():
    fast = standing(1e-3, flops=1e9)
    slow = standing(1e-3, flops=1e7, bytes=10)
    bounds = floors([fast, slow])
    assert bounds[0] == pytest.approx(1e-3)
    assert bounds[1] < 1e-3
    assert next_task([fast, slow]) == 1


def test_gain_falls_with_the_trials_spent():
    few, many = standing(1e-3, trials=4), standing(1e-3, trials=40)
    assert expected_gain(few, 0.0) > expected_gain(many, 0.0) > 0


def test_all_tasks_get_their_turn_in_the_long_run():
    best = [1e-3, 4e-4, 1e-4]
    trials = [1, 1, 1]
    for _ in range(300):
        chosen = next_task([standing(b, trials=t) for b, t in zip(best, trials, strict=True)])
        trials[chosen] += 1
    assert trials[0] > trials[1] > trials[2] > 3


def test_finished_tasks_get_nothing():
    assert next_task([standing(1.0, finished=True), standing(1e-6)]) == 1
    assert next_task([standing(1.0, finished=True)]) is None
    assert next_task([]) is None


def test_a_task_that_only_failed_is_tried_before_the_others_go_on():
    failed = Standing(1, 1e6, 1000, (math.inf, math.inf))
    assert next_task([standing(1.0, calls=100), failed]) == 1


def test_budget_counts_down_to_zero():
    assert Budget(10).left(4) == 6
    assert Budget(10).left(14) == 0
    assert Budget().left(10**9) == math.inf
    with pytest.raises(ValueError, match="trials"):
        Budget(-1)
    with pytest.raises(ValueError, match="seconds"):
        Budget(seconds=-1)
