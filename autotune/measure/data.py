"""The numbers that candidates are run on: seeded, sane for each dtype, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from autotune.dtypes import is_float, numpy_dtype
from search_spaces.cpu.dot import BFLOAT16
from search_spaces.cpu.recurrent import Recurrent, recurrent_of
from search_spaces.task import TensorType, Workload, digest_of

Variant = Literal["signed", "positive", "zeros", "wide", "wide positive"]
"""Floats in [-1, 1), or in [0.1, 1) for functions that are not defined for negative numbers.

Extremes are all "zeros", and "wide": magnitudes from 2**-24 to 2**6 with some zeros of both signs
and some denormals among them. Integers are the same random ones in each, but zero in "zeros".
"""

Array = np.ndarray[Any, np.dtype[Any]]


def holds_bfloat16(workload: Workload) -> bool:
    """Whether its 16-bit integers are the bits of bfloat16 numbers (``autotune.graph.halves``)."""
    return any(block.name.startswith(BFLOAT16.kind) for block in workload.blocks)


def as_numbers(workload: Workload, arrays: Sequence[Array]) -> list[Array]:
    """``arrays`` with the bits of bfloat16 numbers seen as such."""
    if not holds_bfloat16(workload):
        return list(arrays)
    short = numpy_dtype("bfloat16")
    return [one.view(short) if one.dtype == np.uint16 else one for one in arrays]


def inputs_of(workload: Workload) -> tuple[TensorType, ...]:
    """The arguments that are read, in order."""
    return workload.arguments[: len(workload.arguments) - workload.outputs]


def outputs_of(workload: Workload) -> tuple[TensorType, ...]:
    """The arguments that are written, in order."""
    return workload.arguments[len(workload.arguments) - workload.outputs :]


def make_inputs(workload: Workload, variant: Variant, seed: int = 0) -> list[Array]:
    """Random arrays for every input, constants included; equal arguments give equal bits.

    8-bit integers are data and span [-8, 8) or [0, 16). Wider integers may be indices, of whose
    bounds nothing is known here, so they are 0 or 1 (0 where the function has an extent of 1 to
    index).
    """
    rng = np.random.default_rng([seed, int(digest_of([workload.key, variant])[:8], 16)])
    smallest = min((e for t in inputs_of(workload) for e in t.shape), default=1)
    kinds = inputs_of(workload)
    if holds_bfloat16(workload):
        kinds = tuple(replace(t, dtype="bfloat16") if t.dtype == "uint16" else t for t in kinds)
    made = [_random(t, variant, rng, min(2, max(1, smallest))) for t in kinds]
    made = [a.view(numpy_dtype(t.dtype)) for a, t in zip(made, inputs_of(workload), strict=True)]
    found = recurrent_of(workload)
    if found is not None:
        _tame(made, found, variant, rng)
    return made


def _tame(made: list[Array], found: Recurrent, variant: Variant, rng: np.random.Generator) -> None:
    """Give a recurrence weights and lengths that it can be judged by, in place.

    With larger weights it is chaos: after a few steps two right programs differ. And sequences
    end anywhere, not with the first step.
    """
    for position in range(1, 1 + len(found.gates)):
        made[position] *= np.float32(found.size**-0.5)
    for array in made:
        if array.dtype == np.int32 and variant != "zeros":
            array[...] = rng.integers(0, found.steps + 1, array.shape)


def _random(t: TensorType, variant: Variant, rng: np.random.Generator, bound: int) -> Array:
    dtype = numpy_dtype(t.dtype)
    if variant == "zeros":
        return np.zeros(t.shape, dtype)
    if is_float(dtype) and variant.startswith("wide"):
        return _wide(t.shape, rng, signed=variant == "wide").astype(dtype)
    if is_float(dtype):
        values = rng.random(t.shape, dtype=np.float64 if dtype == np.float64 else np.float32)
        values = values * 2 - 1 if variant == "signed" else values * 0.9 + 0.1
        return np.asarray(values, dtype=dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, t.shape).astype(dtype)
    if dtype.itemsize == 1:
        low, high = (0, 16) if dtype.kind == "u" else (-8, 8)
        return rng.integers(low, high, t.shape).astype(dtype)
    return rng.integers(0, bound, t.shape).astype(dtype)


def _wide(shape: tuple[int, ...], rng: np.random.Generator, *, signed: bool) -> Array:
    """Log-uniform magnitudes; one in 16 is zero (-0.0 too, where signed), one in 16 a denormal."""
    values = np.exp2(rng.random(shape, dtype=np.float32) * 30 - 24)
    kind = rng.integers(0, 16, shape)
    values = np.where(kind == 0, np.float32(0), np.where(kind == 1, np.float32(1e-41), values))
    if signed:
        values = values * rng.choice(np.array([-1, 1], np.float32), shape)
    return np.asarray(values, np.float32)


def poison(t: TensorType) -> Array:
    """What an output holds before a run, so that an element that is not written is seen."""
    dtype = numpy_dtype(t.dtype)
    if is_float(dtype):
        return np.full(t.shape, np.nan, dtype=dtype)
    return np.full((t.bytes,), 0xA5, dtype=np.uint8).view(dtype).reshape(t.shape)
