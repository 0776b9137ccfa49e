"""How far right computations of a model that rounds may be from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays, ImportedModel

NUDGES = 6
"""How often a quantised model is computed with other roundings to see what they come to."""

ROUNDED = 1e-2
"""The share of 8-bit outputs that may be rounded to the number beside the right one."""


def otherwise(imported: ImportedModel, inputs: Arrays) -> list[Arrays]:
    """What ONNX Runtime makes of the model by another way, and of a quantised one with other
    roundings.

    Empty where it does not say.
    """
    reference: Any = imported.reference
    try:
        others = [reference.other_way(inputs)]
    except Exception:  # ONNX Runtime's, which share no root: the doubt stays
        return []
    if not reference.quantised or reference.short:
        return others
    try:
        others += [reference.nudged(inputs, seed) for seed in range(NUDGES)]
    except Exception:  # or protobuf's, of a large model
        return others
    return others


def stepwise(expected: Any, actual: Any) -> float:
    """The share of 8-bit numbers that may differ, where none does by more than one."""
    import numpy as np

    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)) or not expected.size:
        return 0.0
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return 0.0
    apart = np.abs(expected.astype(np.int32) - actual.astype(np.int32)).max()
    return max(ROUNDED, 1.0 / expected.size) if apart <= 1 else 0.0
