"""Div and Mod of integers whose divisor is only known when the model runs.

A processor ends the process where such a divisor is zero, or where the quotient has no place: the
lowest integer by minus one. Divided is by something else there, and what comes out is what numpy
says: zero, and the lowest integer.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def divide(builder: Any, inputs: Any, attributes: Any) -> Any:
    """The quotient, its fraction cut off; None where TVM's own conversion is to be taken."""
    from tvm import relax

    if not _open(inputs[1]):
        return None
    emit, (dividend, divisor) = builder.normalize, inputs
    dtype = np.dtype(str(divisor.ty.dtype))
    factor = relax.const(1, dtype.name)
    if dtype.kind == "i":
        factor = _where(emit, divisor, -1, relax.const(-1, dtype.name), factor)
    factor = _where(emit, divisor, 0, relax.const(0, dtype.name), factor)
    return relax.op.multiply(emit(relax.op.divide(dividend, _safe(emit, divisor))), factor)


def modulo(builder: Any, inputs: Any, attributes: Any) -> Any:
    """The rest, with the sign of the divisor or, by "fmod", of the dividend; None as above."""
    from tvm import relax

    if not _open(inputs[1]):
        return None
    rest = relax.op.mod if attributes.get("fmod", 0) else relax.op.floor_mod
    return rest(inputs[0], _safe(builder.normalize, inputs[1]))


def _open(divisor: Any) -> bool:
    """Whether an integer divisor may turn out to be one that ends the process."""
    from search_spaces.graph.expressions import array, is_constant

    if np.dtype(str(divisor.ty.dtype)).kind not in "iu":
        return False
    return not is_constant(divisor) or not np.all(array(divisor))


def _safe(emit: Any, divisor: Any) -> Any:
    """``divisor`` with one in place of zero and of minus one: nothing is left of either."""
    from tvm import relax

    dtype = np.dtype(str(divisor.ty.dtype))
    one, safe = relax.const(1, dtype.name), divisor
    for value in (0, -1) if dtype.kind == "i" else (0,):
        safe = _where(emit, divisor, value, one, safe)
    return safe


def _where(emit: Any, divisor: Any, value: int, then: Any, otherwise: Any) -> Any:
    """``then`` where ``divisor`` is ``value``."""
    from tvm import relax

    found = emit(relax.op.equal(divisor, relax.const(value, str(divisor.ty.dtype))))
    return emit(relax.op.where(found, then, otherwise))
