"""A fixed kernel that tells how fast the machine is at the moment.

A small matrix product on every thread, for the plainest CPU of the architecture: its time depends
on nothing but clock rate and on who else uses the cores.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from autotune.measure.kernel import Kernel, build_kernel
from search_spaces.task import Target, TensorType, Workload

_ROWS, _COLUMNS, _DEPTH = 192, 64, 128
"""Of each thread: 3 MFLOP on 180 KB, some tenths of a millisecond."""

_SECONDS = 0.005
"""How long it is executed for one time: longer than a core is left to one process."""

_FRESH_SECONDS = 0.3
"""For so long a time that was taken after one candidate counts as taken before the next."""


@cache
def fixed_kernel() -> Kernel:
    """The kernel for this process's number of threads, compiled on the first call."""
    import tvm
    from tvm import s_tir, te

    threads = _threads()
    left = te.placeholder((threads * _ROWS, _DEPTH), name="left")
    right = te.placeholder((_DEPTH, _COLUMNS), name="right")
    k = te.reduce_axis((0, _DEPTH), name="k")
    shape = (threads * _ROWS, _COLUMNS)
    product = te.compute(shape, lambda i, j: te.sum(left[i, k] * right[k, j], k), name="product")
    module = tvm.IRModule({"main": te.create_prim_func([left, right, product])})
    schedule = s_tir.Schedule(module, debug_mask=0, error_render_level="fast")
    rows, columns, depth = schedule.get_loops(schedule.get_sblock("product"))
    outer, rows = schedule.split(rows, [threads, _ROWS])
    columns, lanes = schedule.split(columns, [None, 16])
    schedule.reorder(outer, rows, columns, depth, lanes)
    schedule.parallel(outer)
    schedule.vectorize(lanes)
    types = tuple(_type(t) for t in (left, right, product))
    return build_kernel(schedule.mod, Workload("", "", "", types), _plain_target())


class DriftClock:
    """Times the fixed kernel before and after each candidate. Belongs to one worker."""

    def __init__(self) -> None:
        self._arguments: list[Any] | None = None
        self._executions = 1
        self._last = 0.0
        self._taken = float("-inf")

    def before(self) -> float:
        """Seconds of the fixed kernel, or those of a moment ago."""
        if time.monotonic() - self._taken < _FRESH_SECONDS:
            return self._last
        return self.now()

    def now(self) -> float:
        """Seconds of the fixed kernel: the mean of executions one after the other.

        Not their minimum: what a process that shares the cores takes away is to be seen.
        """
        import tvm

        kernel = fixed_kernel()
        if self._arguments is None:
            self._arguments = _arguments()
            self._executions = 1 + int(_SECONDS / min(kernel.samples(self._arguments, 5)))
        timer = kernel.library.time_evaluator(
            kernel.split.main, tvm.cpu(), number=self._executions, repeat=1, min_repeat_ms=0
        )
        self._last = float(timer(*self._arguments).mean)
        self._taken = time.monotonic()
        return self._last


def run_once() -> None:
    """Run the fixed kernel, which makes TVM's threads where there are none yet."""
    fixed_kernel().function(*_arguments())


def _arguments() -> list[Any]:
    import numpy as np
    import tvm

    rows = _threads() * _ROWS
    shapes = (rows, _DEPTH), (_DEPTH, _COLUMNS), (rows, _COLUMNS)
    return [tvm.runtime.tensor(np.ones(shape, np.float32)) for shape in shapes]


def _type(tensor: Any) -> TensorType:
    return TensorType(tuple(int(extent) for extent in tensor.shape), str(tensor.dtype))


def _threads() -> int:
    return int(os.environ.get("TVM_NUM_THREADS", "1"))


def _plain_target() -> Target:
    import tvm

    triple = str(tvm.target.codegen.llvm_get_system_triple())
    return Target("llvm", triple, "", (), "", 1, 1)
