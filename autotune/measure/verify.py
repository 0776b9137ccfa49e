"""Whether a candidate computed what the reference computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.dtypes import is_float, numpy_dtype
from autotune.measure.data import (
    Array,
    as_numbers,
    holds_bfloat16,
    inputs_of,
    outputs_of,
)
from search_spaces.cpu.recurrent import recurrent_of
from search_spaces.task import Workload

FACTOR = 32.0
"""How many times eps * sqrt(K) two right results may lie apart, K being the reduction length.

Summing K numbers in two orders differs by about eps * sqrt(K) of the largest result; the rest is
room for approximated functions (exp, tanh, rsqrt: a few eps each, amplified by what follows) and
for Winograd-like algorithms. A misplaced element is wrong by about 1, thousands of times more.
"""


EDGES = 1e-3
"""The share of 8-bit results that rounding may put into the next step."""


@dataclass(frozen=True)
class Comparison:
    """``error`` is the largest difference, scaled by the largest value of the reference.

    For integers and booleans it is the largest difference itself, and ``tolerance`` is 0.
    ``message`` is "" where the result is right.
    """

    error: float
    tolerance: float
    message: str

    @property
    def right(self) -> bool:
        """Whether the result is accepted."""
        return not self.message


def reduction_length(workload: Workload) -> int:
    """How many numbers are summed into one, over every reduction that follows another.

    Where the blocks are not known, the largest input: an upper bound for a single reduction.
    """
    if not workload.blocks:
        return max((math.prod(t.shape) for t in inputs_of(workload)), default=1)
    recurrent = recurrent_of(workload)
    if recurrent is not None:
        return recurrent.size  # its reductions are inside of its one block
    lengths = [
        math.prod(axis.extent for axis in block.axes if axis.reduced)
        for block in workload.blocks
        if block.reduction
    ]
    return max(1, sum(lengths))


def tolerance_of(workload: Workload) -> float:
    """The scaled error that is tolerated: ``FACTOR`` * eps * sqrt(reduction length).

    eps is that of the coarsest float among the arguments; 0.0 where there is none. Sums of
    bfloat16 numbers are in float32: of such numbers only the results are rounded, once.
    """
    floats = {t.dtype for t in workload.arguments if is_float(numpy_dtype(t.dtype))}
    if holds_bfloat16(workload):
        short = any(t.dtype == "uint16" for t in outputs_of(workload))
        summed = FACTOR * _eps("float32") * math.sqrt(reduction_length(workload))
        return summed + short * _eps("bfloat16")
    if not floats:
        return 0.0
    return FACTOR * max(map(_eps, floats)) * math.sqrt(reduction_length(workload))


def _eps(name: str) -> float:
    dtype = numpy_dtype(name)
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def compare_outputs(
    workload: Workload, got: Sequence[Array], expected: Sequence[Array], tolerance: float
) -> Comparison:
    """As ``compare``, for outputs of ``workload``: bits of floats are compared as these.

    Of 8-bit numbers that floats are rounded to, a few may be the next ones: two right programs may
    be on either side of the edge between them.
    """
    if any("round" in name for block in workload.blocks for name, _ in block.ops):
        got = [_settled(*pair) for pair in zip(got, expected, strict=True)]
    return compare(as_numbers(workload, got), as_numbers(workload, expected), tolerance)


def _settled(got: Array, expected: Array) -> Array:
    """``got``, or ``expected`` where that is of 8 bits and few numbers are one off."""
    if expected.dtype not in (np.int8, np.uint8) or got.shape != expected.shape:
        return got
    apart = np.abs(got.astype(np.int16) - expected.astype(np.int16))
    few = np.count_nonzero(apart) <= max(2.0, EDGES * apart.size)
    return expected if few and apart.max(initial=0) <= 1 else got


def compare(got: Sequence[Array], expected: Sequence[Array], tolerance: float) -> Comparison:
    """Compare each output with the reference; the worst one is reported.

    A NaN or an infinity is accepted only where the reference has the same. Integers and booleans
    must be equal.
    """
    worst = Comparison(0.0, tolerance if any(is_float(e.dtype) for e in expected) else 0.0, "")
    for index, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        one = _compare(ours, theirs, tolerance, index)
        if (not one.right, one.error) > (not worst.right, worst.error):
            worst = one
    return worst


def _compare(got: Array, expected: Array, tolerance: float, index: int) -> Comparison:
    if not is_float(expected.dtype):
        if expected.dtype.kind == "b":
            got, expected = got.view(np.uint8), expected.view(np.uint8)
        wrong = int(np.count_nonzero(got != expected))
        if not wrong:
            return Comparison(0.0, 0.0, "")
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        return Comparison(
            float(difference.max()), 0.0, f"output {index}: {wrong} of {got.size} elements differ"
        )
    ours: np.ndarray[Any, np.dtype[np.float64]] = got.astype(np.float64)
    theirs: np.ndarray[Any, np.dtype[np.float64]] = expected.astype(np.float64)
    finite = np.isfinite(theirs)
    strange = ~np.isfinite(ours) & finite
    if strange.any():
        count = int(np.count_nonzero(strange))
        text = f"output {index}: {count} of {got.size} elements are NaN, infinite or not written"
        return Comparison(math.inf, tolerance, text)
    if not finite.all() and not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        text = f"output {index}: NaN or infinity of the reference is missing"
        return Comparison(math.inf, tolerance, text)
    if not finite.any():
        return Comparison(0.0, tolerance, "")
    scale = float(np.abs(theirs[finite]).max()) + float(np.finfo(np.float32).tiny)
    error = float(np.abs(ours[finite] - theirs[finite]).max()) / scale
    if error <= tolerance:
        return Comparison(error, tolerance, "")
    text = f"output {index}: error {error:.3g} is above {tolerance:.3g}"
    return Comparison(error, tolerance, text)
