"""What Relax expressions are, as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm.ir import GenericConst


def is_constant(expr: Any) -> bool:
    """Whether ``expr`` is a tensor constant."""
    return isinstance(expr, GenericConst) and isinstance(expr.value, tvm.runtime.Tensor)


def array(expr: Any) -> np.ndarray:
    """The payload of a constant."""
    return np.asarray(expr.value.numpy())


def shape_of(expr: Any) -> list[int] | None:
    """Static shape of a tensor expression, or None where it is not known."""
    values = getattr(getattr(getattr(expr, "ty", None), "shape", None), "values", None)
    if values is None:
        return None
    try:
        return [int(value) for value in values]
    except TypeError:
        return None


def dtype_of(expr: Any) -> str:
    """Dtype of a tensor expression, "" where it is none."""
    return str(getattr(getattr(expr, "ty", None), "dtype", ""))
