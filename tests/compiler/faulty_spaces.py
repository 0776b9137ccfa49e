"""Search spaces that are wrong on purpose, beside good ones, for the torture tests.

Imported by the tests and, as a plugin, by the workers. The faults are real: signals, wild writes,
machine code of no processor, memory that is really taken.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.registry import register
from search_spaces.task import Parameters, ParameterValue, Target, Task


class _TestSpace(SearchSpace):
    """Matches nothing by itself: candidates of it are made by name."""

    def matches(self, task: Task, target: Target) -> bool:
        return False

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        return {"tile": IntDistribution(1, 64)}

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        return {"tile": 16}


def _compute_block(schedule: Any) -> Any:
    return schedule.get_child_blocks(schedule.get_sblock("root"))[-1]


class Tiled(_TestSpace):
    """Right: the last spatial axis split by "tile" and vectorised, the first one parallel."""

    name = "test.tiled"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        loops = schedule.get_loops(_compute_block(schedule))
        outer, inner = schedule.split(loops[1], [None, parameters["tile"]])
        schedule.reorder(loops[0], outer, *loops[2:], inner)
        schedule.parallel(loops[0])
        schedule.vectorize(inner)


class Packed(_TestSpace):
    """Right: the constant second operand of a matmul in panels of "tile" columns."""

    name = "test.packed"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        tile = int(parameters["tile"])
        block = _compute_block(schedule)
        copy = schedule.cache_read(block, 1, "global")
        schedule.transform_layout(block, ("read", 1), lambda k, j: (j // tile, k, j % tile))
        schedule.annotate(copy, "meta_schedule.layout_rewrite_preproc", True)
        Tiled().apply(schedule, task, target, parameters)


class PacksInput(_TestSpace):
    """Refused: packs the first operand, which is no constant."""

    name = "test.packs_input"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        copy = schedule.cache_read(_compute_block(schedule), 0, "global")
        schedule.annotate(copy, "meta_schedule.layout_rewrite_preproc", True)


class Refuses(_TestSpace):
    """Invalid: the space itself says no."""

    name = "test.refuses"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        raise InvalidParameters("tile does not fit")


class Illegal(_TestSpace):
    """Refused by TVM: a reduction loop cannot be parallel."""

    name = "test.illegal"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        schedule.parallel(schedule.get_loops(_compute_block(schedule))[-1])


class _Acts(_TestSpace):
    """Does something bad while the schedule is made."""

    act: Callable[[], object]

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        type(self).act()
        Tiled().apply(schedule, task, target, parameters)


class _Emits(_TestSpace):
    """Right, but for what is done at the head of the kernel: compiled into it and run there."""

    def head(self, function: Any) -> Any:
        """The statement."""
        raise NotImplementedError

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        import tvm
        from tvm import s_tir

        Tiled().apply(schedule, task, target, parameters)
        sref = schedule.get_sref(schedule.get_sblock("root"))
        old = sref.stmt
        # In a block of its own: TVM splits a function into packing and the rest by its blocks.
        head = s_tir.SBlock([], [], [], "head", self.head(schedule.mod["main"]))
        realized = s_tir.SBlockRealize([], tvm.tirx.const(True, "bool"), head)
        body = tvm.tirx.SeqStmt([old.body, realized])
        new = s_tir.SBlock(
            old.iter_vars, old.reads, old.writes, old.name_hint, body, old.init,
            old.alloc_buffers, old.match_buffers, old.annotations,
        )  # fmt: skip
        schedule.state.replace(sref, new, {old: new})


class _Calls(_Emits):
    symbol: str
    arguments: tuple[int, ...] = ()

    def head(self, function: Any) -> Any:
        import tvm

        values = [tvm.tirx.const(a, "int32") for a in type(self).arguments]
        return tvm.tirx.Evaluate(tvm.tirx.call_extern("int32", type(self).symbol, *values))


class WildWrite(_Emits):
    """A segmentation fault: stores far behind the output."""

    name = "test.wild_write"

    def head(self, function: Any) -> Any:
        import tvm

        output = function.params[-1]
        value = tvm.tirx.const(1.0, "float32")
        return tvm.tirx.BufferStore(output, value, [tvm.tirx.const(1 << 24, "int32"), 0])


class WrongElement(_Emits):
    """Wrong: one element of the output is another number."""

    name = "test.wrong_element"

    def head(self, function: Any) -> Any:
        import tvm

        output = function.params[-1]
        return tvm.tirx.BufferStore(output, tvm.tirx.const(12345.0, "float32"), [1, 3])


class NotInABlock(_TestSpace):
    """Refused where packing is split off: a kernel of bare statements, as no schedule makes it."""

    name = "test.not_in_a_block"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        from tvm import s_tir, tirx

        sref = schedule.get_sref(schedule.get_sblock("root"))
        old = sref.stmt
        zero = tirx.BufferStore(schedule.mod["main"].params[-1], tirx.const(0.0, "float32"), [0, 0])
        body = tirx.SeqStmt([zero, old.body])
        new = s_tir.SBlock(
            old.iter_vars, old.reads, old.writes, old.name_hint, body, old.init,
            old.alloc_buffers, old.match_buffers, old.annotations,
        )  # fmt: skip
        schedule.state.replace(sref, new, {old: new})


class Overruns(_Emits):
    """Wrong: stores one row behind the output, where nobody would notice."""

    name = "test.overruns"

    def head(self, function: Any) -> Any:
        import tvm

        output = function.params[-1]
        return tvm.tirx.BufferStore(output, tvm.tirx.const(1.0, "float32"), [output.shape[0], 3])


class Underruns(_Emits):
    """Wrong: stores one row before the output."""

    name = "test.underruns"

    def head(self, function: Any) -> Any:
        import tvm

        one = tvm.tirx.const(1.0, "float32")
        return tvm.tirx.BufferStore(function.params[-1], one, [-1, 3])


class WritesInput(_Emits):
    """Wrong: changes an element of its first operand, after it was used."""

    name = "test.writes_input"

    def head(self, function: Any) -> Any:
        import tvm

        one = tvm.tirx.const(1.0, "float32")
        return tvm.tirx.BufferStore(function.params[0], one, [0, 0])


class WrongOnZeros(_Emits):
    """Right on random numbers; where the first input is 0, one element is another number."""

    name = "test.wrong_on_zeros"

    def head(self, function: Any) -> Any:
        import tvm

        a, c = function.params[0], function.params[-1]
        zero = tvm.tirx.const(0.0, "float32")
        store = tvm.tirx.BufferStore(c, tvm.tirx.const(7.0, "float32"), [1, 3])
        return tvm.tirx.IfThenElse(tvm.tirx.BufferLoad(a, [0, 0]).equal(zero), store, None)


class Racy(_TestSpace):
    """Wrong: threads share the reduction and add to the same elements without a lock."""

    name = "test.racy"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        import tvm

        block = _compute_block(schedule)
        i, j, k = schedule.get_loops(block)
        schedule.reorder(k, i, j)
        schedule.decompose_reduction(block, k)
        sref = schedule.get_sref(k)  # the schedule would refuse to make it parallel
        old = sref.stmt
        new = tvm.tirx.For(old.loop_var, old.min, old.extent, tvm.tirx.ForKind.PARALLEL, old.body)
        schedule.state.replace(sref, new)


class NotANumber(_Emits):
    """Wrong: one element of the output is NaN."""

    name = "test.nan"

    def head(self, function: Any) -> Any:
        import tvm

        nan = tvm.tirx.const(float("nan"), "float32")
        return tvm.tirx.BufferStore(function.params[-1], nan, [1, 3])


def _spin() -> None:
    while True:
        pass


def _spin_with_children() -> None:
    if os.fork() == 0:
        signal.pause()
    signal.pause()


def _run_bytes(code: bytes) -> None:
    """Execute ``code`` as machine code."""
    import mmap

    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.CFUNCTYPE(None)(address)()


def _eat() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def _shout() -> None:
    for _ in range(2000):
        os.write(1, b"noise on stdout " * 64)
        try:
            os.write(2, b"noise on stderr " * 64)
        except BlockingIOError:
            continue
    print("noise from Python " * 100)


def _space(base: type[_TestSpace], label: str, **attributes: Any) -> _TestSpace:
    return type(label, (base,), {"name": f"test.{label}", **attributes})()


register(Tiled())
register(Packed())
register(PacksInput())
register(Refuses())
register(Illegal())
register(WildWrite())
register(WrongElement())
register(NotANumber())
register(Overruns())
register(Underruns())
register(WritesInput())
register(WrongOnZeros())
register(Racy())
register(_space(_Calls, "aborts", symbol="abort"))
register(_space(_Calls, "kernel_hangs", symbol="pause"))
register(_space(_Calls, "kernel_exits", symbol="_exit", arguments=(3,)))
register(_space(_Calls, "unknown_symbol", symbol="no_such_function_anywhere"))
for _label, _act in {
    "spins": _spin,
    "spawns": _spin_with_children,
    # PyDLL keeps Python's lock while it calls
    "holds_lock": lambda: ctypes.PyDLL(None).pause(),
    "illegal_instruction": lambda: _run_bytes(b"\x0f\x0b"),
    "null_pointer": lambda: ctypes.string_at(0),
    "eats": _eat,
    "shouts": _shout,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "leaves": lambda: os._exit(3),
    "raises": lambda: 1 // 0,
    "sleeps": lambda: time.sleep(60),
}.items():
    register(_space(_Acts, _label, act=staticmethod(_act)))
