"""QuantizeLinear and DequantizeLinear as elementwise operators.

TVM has operators of its own for them, which no layout is known for and nothing is fused to.
"""

from __future__ import annotations

from typing import Any


def _per_axis(value: Any, rank: int, axis: int) -> Any:
    """A constant of one number, or of one for each along ``axis``, as it broadcasts; or None.

    It is an array, without axes where it is one number.
    """
    from search_spaces.graph.expressions import array, is_constant

    if not is_constant(value) or array(value).ndim > 1:
        return None
    shape = [-1 if i == axis % max(rank, 1) else 1 for i in range(rank)]
    found = array(value)
    return found.reshape(() if found.size == 1 else shape)


def _quantised(inputs: Any, attributes: Any) -> Any:
    """Scale and zero point of a (De)QuantizeLinear with one of each, or one along an axis."""
    import numpy as np

    if attributes.get("block_size") or len(inputs) < 2 or None in list(inputs):
        return None
    rank, axis = int(inputs[0].ty.ndim), attributes.get("axis", 1)
    found = [_per_axis(value, rank, axis) for value in list(inputs)[1:]]
    if any(value is None for value in found) or found[0].dtype != np.float32:
        return None
    return found[0], found[1] if len(found) > 1 else None


def quantize(builder: Any, inputs: Any, attributes: Any) -> Any:
    """Elementwise operators; None where TVM's own conversion is to be taken."""
    import numpy as np
    from tvm import relax

    told = _quantised(inputs, attributes)
    if told is None or str(inputs[0].ty.dtype) != "float32" or attributes.get("output_dtype"):
        return None
    scale, zero = told
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        return None
    emit = builder.normalize
    value = emit(relax.op.round(emit(relax.op.divide(inputs[0], relax.const(scale)))))
    if zero is not None and zero.any():
        value = emit(relax.op.add(value, relax.const(zero.astype(np.float32))))
    limits = np.iinfo(dtype)
    value = emit(relax.op.clip(value, float(limits.min), float(limits.max)))
    return relax.op.astype(value, dtype.name)


def dequantize(builder: Any, inputs: Any, attributes: Any) -> Any:
    """Elementwise operators; None where TVM's own conversion is to be taken."""
    import numpy as np
    from tvm import relax

    from search_spaces.graph.expressions import is_constant

    told = _quantised(inputs, attributes)
    stored = str(inputs[0].ty.dtype) in ("int8", "uint8", "int32")
    if told is None or not stored or is_constant(inputs[0]) or attributes.get("output_dtype"):
        return None
    scale, zero = told
    value = inputs[0]
    if zero is not None and zero.any():
        wide = builder.normalize(relax.op.astype(value, "int32"))
        value = builder.normalize(relax.op.subtract(wide, relax.const(zero.astype(np.int32))))
    real = builder.normalize(relax.op.astype(value, "float32"))
    return relax.op.multiply(real, relax.const(scale))
