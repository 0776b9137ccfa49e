"""How many operations a second this machine does at best, by the dtype of what they are done on.

Each peak is that of a small kernel which TVM compiles for the target: independent chains of
operations in vector registers, enough of them to hide their latency. Where the processor has an
instruction for sums of products of short numbers, of vectors or of whole tiles, it is asked for by
name, since no compiler finds it in a loop by itself; where it has none, short numbers are computed
as longer ones are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune.errors import TargetError
from autotune.profile.peak_kernels import dots, multiply_adds, tile_sums
from search_spaces.cpu.dot import BFLOAT16, INTEGER, Dot
from search_spaces.cpu.tile import COLUMNS, ROWS, Tiles, depth_of, has_tiles
from search_spaces.task import Target, TensorType

if TYPE_CHECKING:
    import numpy as np

    from autotune.measure.kernel import Kernel

STEPS = 100_000
"""Operations in each chain: some tenths of a millisecond."""

TURNS, REPEAT = 6, 50
"""Turns of the kernel of the peak that count, and executions in each."""

ON_STACK = 1 << 10
"""Bytes of a local buffer that TVM keeps on the stack at most."""

DOTS: Mapping[str, Dot] = {"bfloat16": BFLOAT16, "int8": INTEGER}
"""Sums that there are instructions for, by dtype."""

AS_LONGER = {"float16": "float32", "bfloat16": "float32", "int8": "int32"}
"""What numbers are computed as where there is no instruction for them."""

HALVES = ("+avx512fp16", "+fullfp16")
"""Features with which vectors of float16 are computed as they are."""

Given = tuple["np.ndarray[Any, Any]", ...]


def measure_peaks(target: Target) -> dict[str, float]:
    """By dtype, operations a second on all threads of ``target``: a multiply-add is two.

    What cannot be measured is missing. Raises ``TargetError`` where that is float32.
    """
    peaks = {"float32": chains(target, "float32")}
    wanted = ["float64", "int32"]
    if any(feature in target.features for feature in HALVES):
        wanted.append("float16")
    measures: dict[str, Callable[[], float]] = {
        dtype: lambda dtype=dtype: chains(target, dtype)  # type: ignore[misc]
        for dtype in wanted
    }
    for dtype, dot in DOTS.items():
        if dot.lanes(target):
            measures[dtype] = lambda dot=dot: products(target, dot)  # type: ignore[misc]
    for dtype, measure in measures.items():
        try:
            peaks[dtype] = measure()
        except TargetError:
            continue  # an unknown peak is told as such
    for dtype, longer in AS_LONGER.items():
        if dtype not in measures and longer in peaks:
            peaks[dtype] = peaks[longer]
    return peaks


def product_peaks(target: Target) -> dict[str, float]:
    """By dtype, as ``measure_peaks``: of float32, and of numbers that have products of their own.

    Raises ``TargetError``.
    """
    peaks = {"float32": chains(target, "float32")}
    for dtype, dot in DOTS.items():
        if dot.lanes(target):
            peaks[dtype] = products(target, dot)
    return peaks


def products(target: Target, dot: Dot) -> float:
    """Of the fastest instruction for sums like ``dot``. Raises ``TargetError``."""
    return tile_products(target, dot) if has_tiles(dot, target) else dot_products(target, dot)


def chains(target: Target, dtype: str) -> float:
    """Of multiply-adds of ``dtype``. Raises ``TargetError``."""
    import numpy as np

    lanes = target.lanes(dtype)
    size = TensorType((1,), dtype).bytes
    # All in registers, with some left over.
    count = min(target.vector_registers * 5 // 8, ON_STACK // (size * lanes) - 1)
    shape = (target.threads, count, lanes)
    rng = np.random.default_rng(0)
    term = np.empty((2, lanes), dtype)
    if dtype.startswith("int"):
        # x 1 + d stays small: the compiler may take it that integers do not overflow.
        begin = rng.integers(1, 99, shape).astype(dtype)
        term[0], term[1] = 1, rng.integers(1, 99, lanes)
        expected = begin + 2 * STEPS * term[1]
    else:
        # x / 2 + d, again and again, comes to 2 d.
        begin = rng.uniform(0.5, 1, shape).astype(dtype)
        term[0], term[1] = 0.5, rng.uniform(0.5, 1, lanes)
        expected = np.broadcast_to(2 * term[1], shape)
    given = (begin, term, np.zeros(shape, dtype))
    kernels = [multiply_adds(target, dtype, shape, steps) for steps in (STEPS, 2 * STEPS)]
    tolerance = 1e-2 if size < 4 else 1e-5
    return _peak(kernels, given, 2.0 * math.prod(shape) * 2 * STEPS, expected, tolerance)


def dot_products(target: Target, dot: Dot) -> float:
    """Of the instruction ``dot``. Raises ``TargetError``."""
    import numpy as np

    lanes = dot.lanes(target)
    count = min(target.vector_registers * 5 // 8, ON_STACK // (4 * lanes) - 1)
    shape, wide = (target.threads, count, lanes), lanes * dot.depth
    rng = np.random.default_rng(0)
    left, right = (rng.integers(1, 9, s) for s in ((*shape[:2], wide), (wide,)))
    sums = (left * right).reshape(*shape, dot.depth).sum(-1)
    expected = (sums * 2 * STEPS).astype(np.int32 if dot.types[2] == "int32" else np.float64)
    a, b = (_stored(x, kind) for x, kind in zip((left, right), dot.types, strict=False))
    given = (a, b, np.zeros(shape, dot.types[2]))
    kernels = [dots(target, dot, shape, steps) for steps in (STEPS, 2 * STEPS)]
    operations = 2.0 * math.prod(shape) * dot.depth * 2 * STEPS
    return _peak(kernels, given, operations, expected, 2e-2)


def tile_products(target: Target, dot: Dot) -> float:
    """Of the instruction on tiles for ``dot``. Raises ``TargetError``."""
    tiles, steps = Tiles(dot.kind, ROWS, 2, 2), STEPS // ROWS
    given, once = tile_operands(target, tiles)
    kernels = [tile_sums(target, tiles, n) for n in (steps, 2 * steps)]
    operations = 2.0 * once.size * depth_of(dot) * 2 * steps
    return _peak(kernels, given, operations, once * 2 * steps, 2e-2)


def tile_operands(target: Target, tiles: Tiles) -> tuple[Given, Any]:
    """What ``tile_sums`` is given, and what one step of it adds to the sums."""
    import numpy as np

    dot, width = tiles.dot, tiles.across * COLUMNS
    rng = np.random.default_rng(0)
    a = rng.integers(1, 9, (target.threads, tiles.rows, depth_of(dot)))
    b = rng.integers(1, 9, (target.threads, ROWS, width, dot.depth))
    once = np.einsum("trkd,tkwd->trw", a.reshape(*a.shape[:2], ROWS, dot.depth), b)
    sums = np.zeros(once.shape, dot.types[2])
    return (*(_stored(x, kind) for x, kind in zip((a, b), dot.types, strict=False)), sums), once


def _stored(numbers: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Small whole ``numbers`` as an instruction is given them."""
    import numpy as np

    if dtype == "uint16":  # the upper half of a float32 is a bfloat16
        return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(dtype)


def _peak(
    kernels: Sequence[Kernel], arrays: Given, operations: float, expected: Any, tolerance: float
) -> float:
    """Operations a second of the second kernel, which does twice as much as the first."""
    import numpy as np
    import tvm

    given = [tvm.runtime.tensor(array) for array in arrays]
    best, good = 0.0, 0
    for _ in range(5 * TURNS):
        short, long = (min(kernel.samples(given, REPEAT)) for kernel in kernels)
        # Twice the work takes twice as long, unless the compiler has found a shorter way.
        right = np.allclose(given[-1].numpy(), expected, rtol=tolerance)
        if right and 1.8 < long / short < 2.2:
            best, good = max(best, operations / long), good + 1
            if good == TURNS:
                break
        time.sleep(0.05)
    if not best:
        raise TargetError(
            f"the peak of this machine cannot be measured: twice the work took {long / short:.2f} "
            f"times as long, with {'right' if right else 'wrong'} results; try a quieter machine"
        )
    return best
