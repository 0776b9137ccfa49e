"""Messages survive the journey, and nonsense is refused."""

from __future__ import annotations

import socket

import pytest

from autotune.measure import wire
from autotune.measure.outcome import (
    BuildFailed,
    Crashed,
    Invalid,
    Measured,
    Outcome,
    TimedOut,
    WrongResult,
)
from search_spaces.task import Access, Axis, Block, Candidate, Task, TensorType, Workload


def through(message: wire.Message) -> wire.Message:
    return wire.decode(wire.encode(message)[wire.HEADER.size :])


def test_task_and_candidate_come_back_equal() -> None:
    block = Block(
        "b",
        (Axis(4, True),),
        (Access(0, ((0,), ()), True), Access(-1, ((0,),), False)),
        (Access(1, ((),), True),),
        (("mul", 2),),
    )
    types = (TensorType((4,), "float32"), TensorType((), "int8"))
    task = Task(Workload("k", "n", "{}", types, 1, (0,), (block,)), 3, 1e9, 64)
    assert wire.task_from(through(wire.task_message(task))) == task
    made = Candidate("s", 2, {"a": 1, "b": 0.5, "c": True, "d": "x"})
    assert wire.candidate_from(through(wire.candidate_message(made))) == made


@pytest.mark.parametrize(
    "outcome",
    [
        Measured(1e-6, (1e-6, 2.5e-6), 1e-7, 1e-5),
        BuildFailed("build", "no"),
        Crashed("run", 11, "SIGSEGV"),
        TimedOut("run", 10.0),
        WrongResult(float("inf"), 1e-5, "NaN"),
        Invalid("tile"),
    ],
)
def test_outcomes_come_back_equal(outcome: Outcome) -> None:
    assert wire.outcome_from(through(wire.outcome_message(outcome))) == outcome


@pytest.mark.parametrize(
    "message", [{}, {"kind": "won"}, {"kind": "invalid"}, {"kind": "invalid", "other": 1}]
)
def test_what_is_no_outcome_is_refused(message: wire.Message) -> None:
    with pytest.raises(wire.BadMessage):
        wire.outcome_from(message)


def test_what_is_no_message_is_refused() -> None:
    for body in (b"\xff\xfe", b"[1]", b"{"):
        with pytest.raises(wire.BadMessage):
            wire.decode(body)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire.HEADER.pack(wire.LARGEST + 1))
        with pytest.raises(wire.BadMessage):
            wire.receive(theirs)


def test_messages_keep_their_order_and_a_closed_end_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            wire.send(ours, {"n": 1})
            wire.send(ours, {"n": 2})
        assert wire.receive(theirs)[0] == {"n": 1}
        assert wire.receive(theirs)[0] == {"n": 2}
        with pytest.raises(EOFError):
            wire.receive(theirs)
