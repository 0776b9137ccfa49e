"""Quantiles, ratios with their spread, and the order in which engines take turns."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from autotune.bench.difference import difference
from autotune.bench.interleaved import interleave, settle
from autotune.bench.statistics import latency, ratio
from autotune.errors import ModelError


def test_latency_gives_quantiles_of_all_samples() -> None:
    found = latency([i / 100 for i in range(1, 101)])
    assert found.p50 == pytest.approx(0.505)
    assert found.p95 == pytest.approx(0.9505)
    assert found.p99 == pytest.approx(0.9901)
    assert (found.best, found.count) == (0.01, 100)


def test_ratio_is_above_one_where_ours_is_faster() -> None:
    found = ratio([[1.0, 1.0]] * 5, [[2.0, 2.0]] * 5)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.clear


def test_a_disturbance_of_whole_rounds_leaves_the_ratio_alone() -> None:
    slow = [1.0, 1.0, 9.0, 1.0, 7.0, 1.0]
    ours = [[s, s] for s in slow]
    theirs = [[1.5 * s, 1.5 * s] for s in slow]
    assert ratio(ours, theirs).value == pytest.approx(1.5)


def test_noise_makes_a_ratio_unclear() -> None:
    rng = np.random.default_rng(3)
    noisy = lambda: [list(rng.uniform(0.5, 1.5, 5)) for _ in range(20)]  # noqa: E731
    found = ratio(noisy(), noisy())
    assert found.low < found.value < found.high
    assert not found.clear


def test_engines_take_turns_and_each_begins_a_round() -> None:
    now = 0.0
    calls: list[str] = []

    def engine(name: str, cost: float):  # type: ignore[no-untyped-def]
        def run() -> None:
            nonlocal now
            now += cost
            calls.append(name)

        return run

    times = interleave(
        {"a": engine("a", 0.01), "b": engine("b", 0.02)},
        seconds=1.0,
        rounds=4,
        clock=lambda: now,
        sleep=lambda _: None,
    )
    assert [len(turns) for turns in times.values()] == [4, 4]
    assert all(s == pytest.approx(0.02) for turn in times["b"] for s in turn)
    # The order of first appearances, round by round, without repeats.
    order = [c for i, c in enumerate(calls) if i == 0 or calls[i - 1] != c]
    assert order == ["a", "b", "a", "b", "a", "b", "a"]  # warm-up, then ab ba ab ba


def test_difference_names_the_worst_output_for_its_size() -> None:
    ours = {"big": np.array([1000.0, 1.0]), "small": np.array([0.1])}
    theirs = {"big": np.array([1000.5, 1.0]), "small": np.array([0.2])}
    found = difference(ours, theirs)
    assert (found.output, found.relative) == ("small", pytest.approx(0.5))
    assert difference({"x": np.array([np.nan])}, {"x": np.array([1.0])}).relative != 0.0


def test_outputs_of_different_models_are_refused() -> None:
    with pytest.raises(ModelError):
        difference({"x": np.zeros(2)}, {"y": np.zeros(2)})


def test_a_turn_begins_only_when_the_threads_of_the_last_one_rest() -> None:
    spinning = threading.Event()

    def spin() -> None:
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass
        spinning.set()

    thread = threading.Thread(target=spin)
    thread.start()
    settle(0.004)
    assert spinning.is_set()
    thread.join()


def test_a_machine_that_becomes_busy_does_not_stretch_the_comparison() -> None:
    now, calls = 0.0, 0

    def run() -> None:
        nonlocal now, calls
        calls += 1
        now += 0.001 if calls <= 2 else 0.1

    times = interleave({"a": run}, seconds=1.0, rounds=2, clock=lambda: now, sleep=lambda _: None)
    assert all(3 <= len(turn) <= 12 for turn in times["a"])
