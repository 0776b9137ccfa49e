"""The runners of this machine keep the contract that every runner has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from autotune.measure.base import Limits, Runner
from autotune.measure.local import LocalRunner
from autotune.measure.outcome import BuildFailed, Crashed, Invalid, TimedOut, WrongResult
from autotune.testing.runner_contract import Faulty, RunnerTestCase
from autotune.testing.runners import AnalyticRunner
from search_spaces.task import Candidate, Task
from tests.compiler.measuring import host, matmul

PLUGIN = "tests.compiler.faulty_spaces"


def candidate(name: str, tile: int = 16) -> Candidate:
    return Candidate(f"test.{name}", 1, {"tile": tile})


class Candidates(RunnerTestCase):
    """The contract, on the candidates of the torture tests."""

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls) -> Task:
        return matmul()

    @pytest.fixture(scope="class")
    @classmethod
    def good(cls) -> Sequence[Candidate]:
        return [candidate("tiled"), candidate("packed", 8), candidate("tiled", 8)]

    @pytest.fixture(scope="class")
    @classmethod
    def faulty(cls) -> Faulty:
        return [
            (candidate("refuses"), Invalid),
            (candidate("illegal"), BuildFailed),
            (candidate("illegal_instruction"), Crashed),
            (candidate("sleeps"), TimedOut),
            (candidate("wild_write"), Crashed),
            (candidate("aborts"), Crashed),
            (candidate("kernel_exits"), Crashed),
            (candidate("kernel_hangs"), TimedOut),
            (candidate("wrong_element"), WrongResult),
            (candidate("overruns", 8), WrongResult),
            (candidate("writes_input", 8), WrongResult),
        ]


class TestLocalRunner(Candidates):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls) -> Iterator[Runner]:
        limits = Limits(build_seconds=2.0, run_seconds=2.0, memory_bytes=512 << 20)
        with LocalRunner(host(), limits, plugins=[PLUGIN]) as made:
            yield made


class TestAnalyticRunner(Candidates):
    @pytest.fixture(scope="class")
    @classmethod
    def faulty(cls) -> Faulty:
        return [(candidate("wild_write"), Crashed), (candidate("nan"), WrongResult)]

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls) -> Iterator[Runner]:
        failures = {
            "test.wild_write": Crashed("run", 11, "SIGSEGV"),
            "test.nan": WrongResult(1.0, 1e-5, "it is wrong"),
        }
        with AnalyticRunner(host(), lambda _, given: failures.get(given.space, 1e-3)) as made:
            yield made
