"""More spaces that are wrong on purpose: what takes long, takes much, or gets away.

Imported after ``faulty_spaces``, by the same tests and workers. Nothing here can harm the machine:
the greedy ones are few, and stop at the limit of their memory.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from search_spaces.registry import register
from search_spaces.task import Parameters, Target, Task
from tests.compiler.faulty_spaces import (
    _Acts,
    _Calls,
    _compute_block,
    _eat,
    _Emits,
    _space,
    _TestSpace,
)


class Slow(_TestSpace):
    """Right, and many times slower than a good one: it is computed on one thread, one by one."""

    name = "test.slow"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        loops = schedule.get_loops(_compute_block(schedule))
        schedule.split(loops[-1], [None, parameters["tile"]])


class Unrolled(_TestSpace):
    """Takes long to build: each of its elements is code of its own."""

    name = "test.unrolled"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        for loop in schedule.get_loops(_compute_block(schedule))[:2]:
            schedule.unroll(loop)


class KernelSpins(_Emits):
    """Never ends: counts without a pause and without a call."""

    name = "test.kernel_spins"

    def head(self, function: Any) -> Any:
        import tvm

        output = function.params[-1]
        first = tvm.tirx.BufferLoad(output, [0, 0])
        one = tvm.tirx.const(1.0, "float32")
        store = tvm.tirx.BufferStore(output, tvm.tirx.min(first + one, one), [0, 0])
        return tvm.tirx.While(first < tvm.tirx.const(1e30, "float32"), store)


class KernelTraps(_Emits):
    """Runs into an instruction that no processor knows."""

    name = "test.kernel_traps"

    def head(self, function: Any) -> Any:
        import tvm

        return tvm.tirx.Evaluate(tvm.tirx.call_llvm_intrin("void", "llvm.trap"))


class KernelShouts(_Emits):
    """Right, and floods stderr while it runs."""

    name = "test.kernel_shouts"

    def head(self, function: Any) -> Any:
        import tvm

        none = tvm.tirx.const(0, "int64")
        call = tvm.tirx.Evaluate(tvm.tirx.call_extern("int32", "perror", none))
        count = tvm.tirx.Var("shout", "int32")
        zero, often = tvm.tirx.const(0, "int32"), tvm.tirx.const(500, "int32")
        return tvm.tirx.For(count, zero, often, tvm.tirx.ForKind.SERIAL, call)


class Unwritten(_TestSpace):
    """Wrong: its last row is never written."""

    name = "test.unwritten"

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        import tvm

        sref = schedule.get_sref(schedule.get_loops(_compute_block(schedule))[0])
        old = sref.stmt
        new = tvm.tirx.For(old.loop_var, old.min, old.extent - 1, old.kind, old.body)
        schedule.state.replace(sref, new)


class WrongOnLarge(_Emits):
    """Right on numbers up to 1; where one of the first row is larger, one element is another."""

    name = "test.wrong_on_large"

    def head(self, function: Any) -> Any:
        import tvm

        a, c = function.params[0], function.params[-1]
        column = tvm.tirx.Var("column", "int32")
        large = tvm.tirx.BufferLoad(a, [0, column]) > tvm.tirx.const(1.5, "float32")
        store = tvm.tirx.BufferStore(c, tvm.tirx.const(1e4, "float32"), [1, 3])
        found = tvm.tirx.IfThenElse(large, store, None)
        zero = tvm.tirx.const(0, "int32")
        return tvm.tirx.For(column, zero, a.shape[1], tvm.tirx.ForKind.SERIAL, found)


class LosesUpdates(_Emits):
    """Wrong: threads count in one element without a lock, and sleep between load and store.

    So that they meet on a busy machine, too. The count is taken off again: with a lock it is right.
    """

    name = "test.loses_updates"

    def head(self, function: Any) -> Any:
        import tvm

        output, often = function.params[-1], 8
        element = tvm.tirx.BufferLoad(output, [1, 3])
        seen = tvm.tirx.Var("seen", "float32")
        # As long as what was loaded says (which is less): so it is loaded before.
        pause = tvm.tirx.max(seen.astype("int32"), tvm.tirx.const(200, "int32"))
        slept = tvm.tirx.call_extern("int32", "usleep", pause).astype("float32")
        more = tvm.tirx.Let(seen, element, seen + (slept + tvm.tirx.const(1.0, "float32")))
        count = tvm.tirx.Var("count", "int32")
        zero, many = tvm.tirx.const(0, "int32"), tvm.tirx.const(often, "int32")
        add = tvm.tirx.BufferStore(output, more, [1, 3])
        adds = tvm.tirx.For(count, zero, many, tvm.tirx.ForKind.PARALLEL, add)
        back = element - tvm.tirx.const(float(often), "float32")
        return tvm.tirx.SeqStmt([adds, tvm.tirx.BufferStore(output, back, [1, 3])])


_CHILDREN = 2


def _eat_with_children() -> None:
    """Each child takes all that its limit allows, and keeps it; then so does this process."""
    read, write = os.pipe()
    for _ in range(_CHILDREN):
        if os.fork() == 0:
            held = []
            try:
                while True:
                    held.append(bytearray(1 << 24))
            except MemoryError:
                os.write(write, b"x")
                signal.pause()
    for _ in range(_CHILDREN):
        os.read(read, 1)
    _eat()


def _escape() -> None:
    """Leave a process behind that is no longer of the group, nor of the session, of this one."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        signal.pause()


register(Slow())
register(Unrolled())
register(KernelSpins())
register(KernelTraps())
register(KernelShouts())
register(Unwritten())
register(WrongOnLarge())
register(LosesUpdates())
# The kernel's process ends, and one that it started goes on with the kernel, in a new session.
register(_space(_Calls, "kernel_escapes", symbol="daemon", arguments=(1, 1)))
register(_space(_Acts, "eats_with_children", act=staticmethod(_eat_with_children)))
# They wait to be killed by whoever sees them stopped.
register(_space(_Acts, "stops", act=staticmethod(lambda: os.kill(os.getpid(), signal.SIGSTOP))))
register(_space(_Calls, "kernel_stops", symbol="raise", arguments=(int(signal.SIGSTOP),)))
register(_space(_Acts, "escapes", act=staticmethod(_escape)))
