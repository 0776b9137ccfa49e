"""What Relax expressions are, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
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


def mapped(expr: Any, leaf: Callable[[Any], Any]) -> Any:
    """``expr`` with ``leaf`` of whatever its calls and tuples are made of; itself if all is equal.

    ``leaf`` is called in order, and may see a leaf several times.
    """
    if isinstance(expr, relax.Tuple):
        fields = [mapped(field, leaf) for field in expr.fields]
        return expr if _same(fields, expr.fields) else relax.Tuple(fields)
    if isinstance(expr, relax.TupleGetItem):
        value = mapped(expr.tuple_value, leaf)
        return expr if value.same_as(expr.tuple_value) else relax.TupleGetItem(value, expr.index)
    if isinstance(expr, relax.Call):
        args = [mapped(arg, leaf) for arg in expr.args]
        if _same(args, expr.args):
            return expr
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args, expr.span)
    return leaf(expr)


def variables_of(expr: Any) -> list[Any]:
    """Every variable that ``expr`` reads, as often as it does."""
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        if isinstance(leaf, relax.Var):
            found.append(leaf)
        return leaf

    mapped(expr, note)
    return found


def _same(new: Any, old: Any) -> bool:
    return all(one.same_as(other) for one, other in zip(new, old, strict=True))
