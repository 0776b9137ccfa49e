"""What this machine does at best, and so how fast a kernel can be: its roofline bound.

Peak and bandwidth are measured by kernels that TVM compiles for the same target and threads as all
others here: multiply-adds in vector registers, and streams over arrays of many sizes. Neither is
the fastest program there could be, but both are what a compiler without assembly can be asked for.
"""

# mypy: disable-error-code="index, untyped-decorator"
# What TVMScript calls a buffer, and its decorators, have no types that mypy knows.
from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.errors import TargetError
from search_spaces.task import Target, TensorType, Workload

if TYPE_CHECKING:
    from autotune.measure.kernel import Kernel

KIB, MIB = 1 << 10, 1 << 20
SIZES = tuple(256 * KIB << power for power in range(11))
"""Bytes of the working sets, 256 KiB to 256 MiB."""

STEPS = 100_000
"""Multiply-adds in each chain: some tenths of a millisecond."""

TURNS, REPEAT = 6, 50
"""Turns of the kernel of the peak that count, and executions in each."""

SECONDS = 0.05
"""How long a stream is executed, of which the fastest execution counts."""


@dataclass(frozen=True)
class Bound:
    """Seconds that a kernel takes at least, and which roof it is: "compute" or "memory"."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Roof:
    """``peak`` is FLOP/s on all threads; ``bandwidth`` holds bytes/s by bytes of the working set.

    ``start`` is the seconds that a kernel takes which has next to nothing to do on all threads.
    Sizes ascend. Bytes are those that a program reads and writes: that a processor reads what it is
    to overwrite is not counted, in kernels neither.
    """

    peak: float
    bandwidth: tuple[tuple[int, float], ...]
    start: float = 0.0

    def bandwidth_at(self, size: float) -> float:
        """Bytes/s at ``size`` bytes: straight lines between the sizes measured, both logarithmic.

        Beyond either end it is that of the end.
        """
        first, last = self.bandwidth[0], self.bandwidth[-1]
        if size <= first[0]:
            return first[1]
        for low, high in zip(self.bandwidth, self.bandwidth[1:], strict=False):
            if size <= high[0]:
                share = math.log(size / low[0]) / math.log(high[0] / low[0])
                return math.pow(low[1], 1 - share) * math.pow(high[1], share)
        return last[1]

    def bound(self, flops: float, size: float) -> Bound:
        """Of a kernel that computes ``flops`` and touches ``size`` bytes once each."""
        compute, memory = flops / self.peak, size / self.bandwidth_at(size)
        return Bound(compute, "compute") if compute >= memory else Bound(memory, "memory")

    def better(self, other: Roof | None) -> Roof:
        """The higher of both at each point: what disturbs the machine only ever lowers a roof."""
        if other is None:
            return self
        pairs = zip(self.bandwidth, other.bandwidth, strict=True)
        start = min(self.start, other.start)
        return Roof(max(self.peak, other.peak), tuple(max(a, b) for a, b in pairs), start)


def measure(target: Target, sizes: Sequence[int] = SIZES) -> Roof:
    """The roof of this machine on ``target``'s threads; takes some seconds, best on a quiet one.

    Raises ``TargetError`` where the compiler did not leave the kernel of the peak as it was meant.
    """
    peak = _peak(target)
    bandwidth = tuple((size, _bandwidth(target, size)) for size in sizes)
    return Roof(peak, bandwidth, _start(target))


def _peak(target: Target) -> float:
    """FLOP/s of independent chains of multiply-adds, enough of them to hide their latency."""
    import numpy as np
    import tvm

    lanes = target.lanes()
    # All in registers, with some left over; and in less than the 1 KiB that TVM keeps on the stack.
    chains = min(target.vector_registers * 5 // 8, (1 << 10) // (4 * lanes) - 1)
    shape = (target.threads, chains, lanes)
    rng = np.random.default_rng(0)
    begin, term = (rng.uniform(0.5, 1, s).astype("float32") for s in (shape, shape[-1:]))
    given = [tvm.runtime.tensor(x) for x in (begin, term, np.zeros(shape, "float32"))]
    kernels = [_chains(target, shape, steps) for steps in (STEPS, 2 * STEPS)]
    best, good = 0.0, 0
    for _ in range(5 * TURNS):
        short, long = (min(kernel.samples(given, REPEAT)) for kernel in kernels)
        # x / 2 + d, again and again, comes to 2 d; and twice as many of them take twice as long,
        # unless the compiler has found a shorter way.
        right = np.allclose(given[2].numpy(), np.broadcast_to(2 * term, shape), rtol=1e-5)
        if right and 1.8 < long / short < 2.2:
            best, good = max(best, 2.0 * math.prod(shape) * 2 * STEPS / long), good + 1
            if good == TURNS:
                break
        time.sleep(0.05)
    if not best:
        raise TargetError(
            f"the peak of this machine cannot be measured: twice the work took {long / short:.2f} "
            f"times as long, with {'right' if right else 'wrong'} results; try a quieter machine"
        )
    return best


def _chains(target: Target, shape: tuple[int, ...], steps: int) -> Kernel:
    """A kernel that does ``steps`` multiply-adds on each element of ``shape``."""
    import tvm
    from tvm.script import tirx as T

    threads, chains, lanes = shape
    whole, line = T.Buffer(shape, "float32"), T.Buffer(shape[-1:], "float32")

    # Not a sum of products: those do not change from step to step, and would be computed once.
    @T.prim_func(s_tir=True)
    def main(begin: whole, term: line, result: whole) -> None:  # type: ignore[valid-type]
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            for thread in T.parallel(threads):
                with T.sblock("thread"):
                    at = T.axis.spatial(threads, thread)
                    T.reads(begin[at, 0:chains, 0:lanes], term[0:lanes])
                    T.writes(result[at, 0:chains, 0:lanes])
                    kept = T.sblock_alloc_buffer((chains, lanes), scope="local")
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            kept[c, v] = begin[at, c, v]
                    for _ in range(steps):
                        for c in T.unroll(chains):
                            for v in T.vectorized(lanes):
                                kept[c, v] = kept[c, v] * T.float32(0.5) + term[v]
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            result[at, c, v] = kept[c, v]

    return _kernel(tvm.IRModule({"main": main}), (shape, shape[-1:], shape), target)


def _bandwidth(target: Target, size: int) -> float:
    """Bytes/s of the fastest stream over ``size`` bytes.

    A copy writes as much as it reads, a triad half as much: which is faster depends on the cache.
    Small ones are faster on one thread than on all, since threads take time to start.
    """
    best = 0.0
    for arrays in (2, 3):
        for threads in {1, target.threads}:
            best = max(best, _stream(target, size, arrays, threads))
    return best


def _start(target: Target) -> float:
    """Seconds of a kernel in which each thread copies some vectors."""
    size = 4096 * target.threads
    return size / _stream(target, size, 2, target.threads)


def _stream(target: Target, size: int, arrays: int, threads: int) -> float:
    """Bytes/s of a stream over ``arrays`` that take ``size`` bytes together."""
    import numpy as np
    import tvm
    from tvm import s_tir, te, tirx

    unrolled, lanes = 4, target.lanes()
    chunk = threads * unrolled * lanes
    count = size // (4 * arrays) // chunk * chunk
    sources = [te.placeholder((count,), name=f"source{i}") for i in range(arrays - 1)]
    factor = tirx.const(0.5, "float32")

    def element(at: Any) -> Any:
        return sources[0][at] if arrays == 2 else sources[0][at] * factor + sources[1][at]

    result = te.compute((count,), element, name="result")
    module = tvm.IRModule({"main": te.create_prim_func([*sources, result])})
    schedule = s_tir.Schedule(module, debug_mask=0)
    (loop,) = schedule.get_loops(schedule.get_sblock("result"))
    outer, _, inner, vector = schedule.split(loop, [threads, None, unrolled, lanes])
    schedule.unroll(inner)
    schedule.vectorize(vector)
    if threads > 1:
        schedule.parallel(outer)
    kernel = _kernel(schedule.mod, [(count,)] * arrays, target)
    given = [tvm.runtime.tensor(np.ones(count, "float32")) for _ in range(arrays)]
    pace = min(kernel.samples(given, 3))
    fastest = min(kernel.samples(given, max(5, min(1000, int(SECONDS / pace)))))
    return 4.0 * arrays * count / fastest


def _kernel(module: Any, shapes: Sequence[tuple[int, ...]], target: Target) -> Kernel:
    """A kernel that takes float32 tensors of ``shapes`` and writes the last."""
    from autotune.measure.kernel import build_kernel

    types = tuple(TensorType(shape, "float32") for shape in shapes)
    return build_kernel(module, Workload("", "", "", types), target)
