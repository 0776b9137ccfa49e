"""The dtypes of tensors by name, those that numpy itself lacks included: bfloat16 and 8-bit floats.

They come from ``ml_dtypes``, which TVM's runtime needs as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHORT = "bfloat16"

EXACT = 2**24
"""Whole numbers up to here, and their sums up to here, are floats of 32 bits without rounding."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of TVM's or ONNX's ``name``."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return small


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether rounding is to be expected: numpy's floats and those of ml_dtypes."""
    return dtype.kind == "f" or "float" in dtype.name
