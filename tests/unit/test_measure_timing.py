"""How many executions a candidate gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autotune.measure.timing import TimingPlan, collect, estimate, uncertainty

PLAN = TimingPlan()


def kernel(seconds: float) -> Callable[[int], list[float]]:
    return lambda n: [seconds] * n


@pytest.mark.parametrize(
    ("seconds", "best", "count"),
    [
        (1e-6, None, 100),
        (5e-3, None, 20),
        (20e-3, None, 6),
        (0.2, None, 5),
        (0.9, None, 3),
        (10.0, None, 3),
        (1e-3, 1e-3, 100),
        (1.15e-3, 1e-3, 86),
        (1.4e-3, 1e-3, 6),
        (2.5e-3, 1e-3, 3),
        (0.0, None, 100),
    ],
)
def test_count_of_executions(seconds: float, best: float | None, count: int) -> None:
    assert len(collect(kernel(seconds), best, PLAN)) == pytest.approx(count, abs=1)


def test_a_disturbed_first_execution_does_not_end_a_good_candidate() -> None:
    times = iter([9e-3, 9e-3, 1e-3, *[1.1e-3] * 200])
    samples = collect(lambda n: [next(times) for _ in range(n)], 1e-3, PLAN)
    assert len(samples) > 50
    assert estimate(samples) == 1e-3


def test_a_first_execution_is_judged_with_room_for_what_is_done_once() -> None:
    assert PLAN.hopeless_at_first(None) == float("inf")
    assert PLAN.hopeless_at_first(10e-3) == pytest.approx(40e-3)
    assert PLAN.hopeless_at_first(1e-6) == 2e-3


def test_uncertainty_is_small_where_the_fastest_time_was_met_again() -> None:
    assert uncertainty([1.0, 1.0, 1.0, 5.0]) == 0.0
    assert uncertainty([1.0, 1.5, 1.5, 1.5]) == pytest.approx(0.5)
    assert uncertainty([1.0]) is None
