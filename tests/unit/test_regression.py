"""The gate's verdict on samples that are made: what is noise, what is worse, and how often."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from autotune.bench.regression import (
    MEMORY_NOISE,
    PROCESSES,
    SIGNIFICANCE,
    Finding,
    Thresholds,
    findings,
    hungrier,
    times_of,
)

CHECKS = 100
ROUNDS, CALLS = 8, 10
Noise = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Seconds of one process, by round and call, of the baseline and of what is now."""


def normal(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Calls that differ by 3 %, in processes that favour one of both by 1 %."""
    old, new = 1 + 0.03 * rng.standard_normal((2, ROUNDS, CALLS))
    return old, new * np.exp(0.01 * rng.standard_normal())


def skewed(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Calls that are only ever delayed, some for long."""
    old, new = 1 + rng.exponential(0.05, (2, ROUNDS, CALLS))
    for side in (old, new):
        side[rng.random(side.shape) < 0.05] *= 4
    return old, new


def drifting(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A machine that becomes up to half slower within a process, in steps and steadily."""
    machine = np.linspace(1, rng.uniform(1, 1.5), ROUNDS)[:, None] * rng.choice(
        [1, 1.4], (ROUNDS, 1)
    )
    old, new = machine * (1 + 0.03 * rng.standard_normal((2, ROUNDS, CALLS)))
    return old, new


NOISES = [normal, skewed, drifting]


def checked(noise: Noise, slower: float, rng: np.random.Generator) -> dict[str, Finding]:
    """One check, where what is now takes ``slower`` times as long."""
    times = []
    for _ in range(PROCESSES):
        old, new = noise(rng)
        times.append(times_of(old.tolist(), (slower * new).tolist()))
    found = findings(times, ([1e8], [1e8]), (100, 100), 0.0, Thresholds())
    return {one.figure: one for one in found}


@functools.cache
def share_worse(noise: Noise, slower: float) -> dict[str, float]:
    """How many checks find each time worse."""
    rng = np.random.default_rng(7)
    checks = [checked(noise, slower, rng) for _ in range(CHECKS)]
    return {name: sum(one[name].worse for one in checks) / CHECKS for name in ("p50", "p99")}


@pytest.mark.parametrize("noise", NOISES)
def test_what_did_not_change_is_not_worse(noise: Noise) -> None:
    assert share_worse(noise, 1.0)["p50"] <= 0.01
    assert share_worse(noise, 1.0)["p99"] <= 0.02


@pytest.mark.parametrize("noise", NOISES)
def test_five_percent_slower_is_seen(noise: Noise) -> None:
    assert share_worse(noise, 1.05)["p50"] >= 0.95


@pytest.mark.parametrize("noise", NOISES)
def test_less_than_is_allowed_passes_however_sure_it_is(noise: Noise) -> None:
    assert share_worse(noise, 1.01)["p50"] <= 0.05


def test_the_chance_is_exact_where_nothing_changed() -> None:
    """Of equals, ratios are as high as this in so many checks only: any noise, however wild."""
    rng = np.random.default_rng(11)
    wild = lambda r: tuple(np.exp(r.standard_cauchy((2, ROUNDS, 1)).clip(-5, 5)))  # noqa: E731
    chances = [checked(wild, 1.0, rng)["p50"].probability or 0.0 for _ in range(200)]
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(chances) <= level)
        assert abs(share - level) < 0.05 + 2.5 * math.sqrt(level * (1 - level) / 200), level
    assert np.mean(np.array(chances) <= SIGNIFICANCE) <= 0.02


def test_a_slower_tail_is_seen_though_the_median_is_as_before() -> None:
    rng = np.random.default_rng(5)
    times = []
    for _ in range(PROCESSES):
        old, new = 1 + 0.01 * rng.standard_normal((2, ROUNDS, 50))
        new[:, ::25] *= 2
        times.append(times_of(old.tolist(), new.tolist()))
    p50, p99, *_ = findings(times, ([1e8], [1e8]), (1, 1), 0.0, Thresholds())
    assert not p50.worse
    assert p99.worse and p99.change > 0.5


def test_samples_that_are_all_equal_are_no_finding() -> None:
    times = [times_of([[1.0] * 3] * 3, [[1.0] * 3] * 3)] * PROCESSES
    assert [one.worse for one in findings(times, ([1], [1]), (1, 1), 0.0, Thresholds())] == [
        False
    ] * 5


@pytest.mark.parametrize(
    ("baseline", "now", "worse"),
    [
        ([100e6, 101e6, 102e6], [100e6, 101e6, 103e6], False),
        ([100e6, 101e6, 102e6], [120e6, 121e6, 122e6], True),
        ([100e6, 101e6, 119e6], [120e6, 121e6, 122e6], False),  # one of the baseline's took as much
        ([100e6, 101e6, 102e6], [90e6, 130e6, 130e6], False),
        ([1e5, 1e5, 1e5], [1e5 + MEMORY_NOISE] * 3, False),  # eleven times, but nothing
        ([0.0, 0.0, 0.0], [2e6, 2e6, 2e6], True),
    ],
)
def test_memory_is_worse_only_in_every_process(
    baseline: list[float], now: list[float], worse: bool
) -> None:
    assert hungrier(baseline, now, 0.05).worse is worse


@pytest.mark.parametrize(
    ("size", "error", "worse"),
    [
        ((1000, 1050), 1e-4, []),
        ((1000, 1051), 0.0, ["size"]),
        ((1000, 900), 2e-4, ["error"]),
        ((1000, 1000), math.inf, ["error"]),
        ((1000, 1000), math.nan, ["error"]),
    ],
)
def test_size_and_outputs_are_held_against_their_limits(
    size: tuple[int, int], error: float, worse: list[str]
) -> None:
    times = [times_of([[1.0]], [[1.0]])] * PROCESSES
    found = findings(times, ([1e8], [1e8]), size, error, Thresholds())
    assert [one.figure for one in found if one.worse] == worse
