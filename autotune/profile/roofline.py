"""What this machine does at best, and so how fast a kernel can be: its roofline bound.

Peaks and bandwidth are measured by kernels that TVM compiles for the same target and threads as all
others here: operations in vector registers, and streams over arrays of many sizes. Neither is the
fastest program there could be, but both are what a compiler without assembly can be asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.profile.peaks import measure_peaks
from search_spaces.task import Target, TensorType, Workload

if TYPE_CHECKING:
    from autotune.measure.kernel import Kernel

KIB, MIB = 1 << 10, 1 << 20
SIZES = tuple(256 * KIB << power for power in range(11))
"""Bytes of the working sets, 256 KiB to 256 MiB."""

SECONDS = 0.05
"""How long a stream is executed, of which the fastest execution counts."""


@dataclass(frozen=True)
class Bound:
    """Seconds that a kernel takes at least, and which roof it is: "compute" or "memory"."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Roof:
    """``peaks`` are operations/s on all threads, by the dtype of what they are done on.

    ``bandwidth`` holds bytes/s by bytes of the working set.
    ``start`` is the seconds that a kernel takes which has next to nothing to do on all threads.
    Sizes ascend. Bytes are those that a program reads and writes: that a processor reads what it is
    to overwrite is not counted, in kernels neither.
    """

    peaks: Mapping[str, float]
    bandwidth: tuple[tuple[int, float], ...]
    start: float = 0.0

    @property
    def peak(self) -> float:
        """Of float32, in which most models are computed."""
        return self.peaks["float32"]

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

    def bound(self, flops: float, size: float, dtype: str = "float32") -> Bound:
        """Of a kernel that does ``flops`` on ``dtype`` and touches ``size`` bytes once each.

        ``dtype`` is one of ``peaks`` where there are ``flops``.
        """
        compute = flops / self.peaks[dtype] if flops else 0.0
        memory = size / self.bandwidth_at(size)
        return Bound(compute, "compute") if compute >= memory else Bound(memory, "memory")

    def better(self, other: Roof | None) -> Roof:
        """The higher of both at each point: what disturbs the machine only ever lowers a roof."""
        if other is None:
            return self
        pairs = zip(self.bandwidth, other.bandwidth, strict=True)
        start = min(self.start, other.start)
        names = sorted({*self.peaks, *other.peaks})
        peaks = {n: max(self.peaks.get(n, 0.0), other.peaks.get(n, 0.0)) for n in names}
        return Roof(peaks, tuple(max(a, b) for a, b in pairs), start)


def measure(target: Target, sizes: Sequence[int] = SIZES) -> Roof:
    """The roof of this machine on ``target``'s threads; takes some seconds, best on a quiet one.

    Raises ``TargetError`` where the compiler did not leave the kernel of the peak as it was meant.
    """
    peaks = measure_peaks(target)
    bandwidth = tuple((size, _bandwidth(target, size)) for size in sizes)
    return Roof(peaks, bandwidth, _start(target))


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
