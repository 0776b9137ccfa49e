"""Callers at the same time: how they are counted, and the turns that engines take."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from autotune.bench.peers import PEERS, peer_named
from autotune.bench.statistics import throughput
from autotune.bench.throughput import Callers, calling, rates
from autotune.errors import InputError, ModelError


def test_every_caller_calls_its_own_instance_in_its_own_thread() -> None:
    seen: list[set[int]] = [set(), set(), set()]
    together = threading.Barrier(3)

    def instance(number: int):  # type: ignore[no-untyped-def]
        def run() -> None:
            seen[number].add(threading.get_ident())
            if len(seen[number]) == 1:
                together.wait(10)  # nobody goes on before all call

        return run

    callers = Callers([instance(number) for number in range(3)])
    try:
        assert callers.turn(0.0) > 0
        assert callers.turn(0.0) > 0  # the same threads as before
    finally:
        callers.close()
    assert [len(threads) for threads in seen] == [1, 1, 1]
    assert len(set().union(*seen)) == 3


def test_a_caller_that_fails_is_heard() -> None:
    def fail() -> None:
        raise ModelError("no more")

    with calling({"a": [fail, lambda: None]}) as callers, pytest.raises(ModelError):
        callers["a"].turn(0.01)


def test_turns_begin_with_another_engine_and_with_calls_that_do_not_count() -> None:
    order: list[tuple[str, float]] = []

    def engine(name: str, rate: float):  # type: ignore[no-untyped-def]
        def turn(seconds: float) -> float:
            order.append((name, seconds))
            return rate

        return turn

    found = rates(
        {"a": engine("a", 10.0), "b": engine("b", 5.0)},
        seconds=2.0, rounds=2, sleep=lambda _: None,
    )  # fmt: skip
    assert found == {"a": [10.0, 10.0], "b": [5.0, 5.0]}
    assert [name for name, _ in order] == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert [seconds for _, seconds in order[1::2]] == [0.5] * 4
    assert all(seconds < 0.5 for _, seconds in order[::2])


def test_throughput_has_a_spread_and_a_ratio() -> None:
    found = throughput([90.0, 100.0, 110.0, 100.0], 2, [180.0, 200.0, 220.0, 200.0])
    assert (found.callers, found.value) == (2, 100.0)
    assert 90.0 <= found.low <= found.value <= found.high <= 110.0
    assert found.ratio.value == pytest.approx(2.0)
    assert found.ratio.low == pytest.approx(found.ratio.high)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_for_onnx_refuse_programs_of_torch(name: str) -> None:
    with pytest.raises(ModelError, match=r"m\.pt2 is a program of torch\.export: compare with"):
        peer_named(name).engine(Path("m.pt2"), {}, 1)


@pytest.mark.parametrize("name", ["torch", "torch.compile"])
def test_torch_refuses_onnx_files(name: str) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx is none: leave it out of --against"):
        peer_named(name).engine(Path("m.onnx"), {}, 1)


def test_an_unknown_engine_is_told_which_there_are() -> None:
    with pytest.raises(InputError, match="torch or torch.compile"):
        peer_named("tensorflow")
    assert list(PEERS) == ["onnxruntime", "openvino", "torch", "torch.compile"]
