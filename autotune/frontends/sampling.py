"""Random inputs that a model accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = np.asarray(generator.uniform(-1.0, 1.0, spec.shape), dtype)
        else:
            drawn = generator.integers(0, spec.upper or 2, spec.shape)
            arrays[spec.name] = np.asarray(drawn, dtype)
    return arrays


def sample_inputs(imported: ImportedModel, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of ``imported``, but where it has ``samples`` those."""
    return random_inputs(imported.inputs, seed) | dict(imported.samples)
