"""Random inputs that a model accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.dtypes import is_float, numpy_dtype
from autotune.frontends.base import ImportedModel, TensorSpec

if TYPE_CHECKING:
    import numpy as np


def random_inputs(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """Arrays by name: floats in -1 to 1, integers below ``upper`` (0 or 1 where it is unknown).

    Equal seeds give equal arrays, on every machine.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays = {}
    for spec in specs:
        dtype = numpy_dtype(spec.dtype)
        if is_float(dtype):
            arrays[spec.name] = np.asarray(generator.uniform(-1.0, 1.0, spec.shape), dtype)
        else:
            drawn = generator.integers(0, spec.upper or 2, spec.shape)
            arrays[spec.name] = np.asarray(drawn, dtype)
    return arrays


def sample_inputs(imported: ImportedModel, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of ``imported``, but where it has ``samples`` those."""
    return random_inputs(imported.inputs, seed) | dict(imported.samples)


EXTREMES = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -2.5, 1e-6, 8.0, -8.0)
"""Where operators change their ways: signs, ties of rounding, the ends of activations."""


def extreme_inputs(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """Arrays by name: floats in -8 to 8, a third of them ``EXTREMES``, and integers above zero.

    8-bit integers, which are quantised numbers and no indices, take any value; those that index a
    table any that is valid; other integers are 1 to 3.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays = {}
    for spec in specs:
        dtype = numpy_dtype(spec.dtype)
        if is_float(dtype):
            drawn = generator.uniform(-8.0, 8.0, spec.shape)
            chosen = generator.choice(EXTREMES, spec.shape)
            values = np.where(generator.uniform(0, 1, spec.shape) < 1 / 3, chosen, drawn)
        elif dtype.kind in "iu" and dtype.itemsize == 1 and not spec.upper:
            limits = np.iinfo(dtype)
            values = generator.integers(limits.min, limits.max + 1, spec.shape)
        elif dtype.kind == "b":
            # Mostly true: masks are booleans, and of a row that is masked as a whole nobody agrees.
            values = generator.uniform(0, 1, spec.shape) < 3 / 4
        else:
            values = generator.integers(0 if spec.upper else 1, spec.upper or 4, spec.shape)
        arrays[spec.name] = np.asarray(values).astype(dtype)
    return arrays


def first_inputs(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """As ``random_inputs``, with integers of zero, which every index accepts."""
    import numpy as np

    drawn = random_inputs(specs, seed)
    return {n: np.zeros_like(v) if v.dtype.kind in "iu" else v for n, v in drawn.items()}


def nonzero_inputs(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """As ``extreme_inputs``, with integers that can be divided by: ones in place of zeros."""
    import numpy as np

    drawn = extreme_inputs(specs, seed)
    return {
        n: np.where(v == 0, v.dtype.type(1), v) if v.dtype.kind in "iu" else v
        for n, v in drawn.items()
    }
