"""Quantised operators, as integers where they add up integers and as floats where they scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.dtypes import EXACT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def _spread(site: Site, value: str, shape: Sequence[int], axis: int, block: int = 0) -> str:
    """A scale or zero point in the shape that broadcasts over a tensor of ``shape``."""
    import numpy as np

    own = site.shape(value)
    if int(np.prod(own)) == 1 and len(own) < 2 and (not own or shape[axis % len(shape)] != 1):
        return site.reshape(value, ()) if own else value
    axis %= max(len(shape), 1)
    if block:
        repeated = np.minimum(np.arange(shape[axis]) // block, own[axis] - 1)
        return site.take(value, repeated, axis)
    if len(own) == 1:
        return site.reshape(value, [own[0] if i == axis else 1 for i in range(len(shape))])
    return value


def limits_of(dtype: Any) -> tuple[int, int]:
    """The lowest and highest number of an integer type."""
    import numpy as np

    found = np.iinfo(dtype)
    return int(found.min), int(found.max)


def quantised(site: Site, x: str, scale: str, zero: str, dtype: Any, wide: Any) -> str:
    """``saturate(round(x / scale) + zero)`` as ``dtype``; ``wide`` is the float to compute in."""
    import numpy as np

    scaled = site.emit("Round", site.emit("Div", x, scale))
    if zero:
        scaled = site.emit("Add", scaled, site.cast(zero, wide))
    low, high = (np.asarray(bound, wide) for bound in limits_of(dtype))
    return site.cast(site.emit("Min", site.emit("Max", scaled, low), high), dtype)


def quantize_linear(site: Site) -> Sequence[str] | None:
    import numpy as np
    from onnx import helper

    x, scale, zero = (site.input(i) for i in range(3))
    to = site.attribute("output_dtype", 0)
    dtype = site.dtype(zero) if zero else np.dtype(np.uint8)
    if to and not zero:
        dtype = helper.tensor_dtype_to_np_dtype(to)
    if dtype.kind not in "iu" or dtype.itemsize > 2 or dtype.name.startswith(("int4", "uint4")):
        return None
    wide, shape = np.dtype(np.float32), site.shape(x)
    axis, block = site.attribute("axis", 1), site.attribute("block_size", 0)
    scale = site.cast(_spread(site, scale, shape, axis, block), wide)
    zero = _spread(site, zero, shape, axis, block) if zero else ""
    return [quantised(site, site.cast(x, wide), scale, zero, dtype, wide)]


def dequantize_linear(site: Site) -> Sequence[str] | None:
    import numpy as np
    from onnx import helper

    x, scale, zero = (site.input(i) for i in range(3))
    shape, axis, block = site.shape(x), site.attribute("axis", 1), site.attribute("block_size", 0)
    to = site.attribute("output_dtype", 0)
    result = helper.tensor_dtype_to_np_dtype(to) if to else site.dtype(scale)
    if site.dtype(x).kind not in "iu" or result.kind != "f":
        return None
    value = site.cast(x, np.int32)
    if zero:
        value = site.emit(
            "Sub", value, site.cast(_spread(site, zero, shape, axis, block), np.int32)
        )
    wide = np.float32
    scaled = site.cast(_spread(site, scale, shape, axis, block), wide)
    return [site.cast(site.emit("Mul", site.cast(value, wide), scaled), result)]


def dynamic_quantize_linear(site: Site) -> Sequence[str]:
    import numpy as np

    x, rank = site.input(0), len(site.shape(site.input(0)))
    zero, most = np.asarray(0, np.float32), np.asarray(255, np.float32)
    flat = site.reshape(x, (1, -1)) if rank else site.reshape(x, (1, 1))
    largest = site.emit("Max", site.reshape(site.reduce("ReduceMax", flat, 1), ()), zero)
    smallest = site.emit("Min", site.reshape(site.reduce("ReduceMin", flat, 1), ()), zero)
    scale = site.emit("Div", site.emit("Sub", largest, smallest), most)
    point = site.emit("Round", site.emit("Sub", zero, site.emit("Div", smallest, scale)))
    point = site.cast(site.emit("Min", site.emit("Max", point, zero), most), np.uint8)
    return [quantised(site, x, scale, point, np.uint8, np.float32), scale, point]


def _integers(site: Site, value: str, zero: str, column: bool) -> str:
    """``value - zero`` as 32-bit integers; ``zero`` may hold one for each row (or column)."""
    import numpy as np

    wide = site.cast(value, np.int32)
    if not zero:
        return wide
    shape, own = site.shape(value), site.shape(zero)
    if len(own) == 1 and own[0] > 1 and not column:
        zero = site.reshape(zero, (own[0], 1))
    elif int(np.prod(own)) == 1 and len(own) <= max(len(shape), 1):
        zero = site.reshape(zero, ())
    return site.emit("Sub", wide, site.cast(zero, np.int32))


def matmul_integer(site: Site) -> Sequence[str]:
    a, b, a_zero, b_zero = (site.input(i) for i in range(4))
    return [
        site.emit("MatMul", _integers(site, a, a_zero, False), _integers(site, b, b_zero, True))
    ]


def qlinear_matmul(site: Site) -> Sequence[str]:
    import numpy as np

    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (site.input(i) for i in range(8))
    total = site.emit("MatMul", _integers(site, a, a_zero, False), _integers(site, b, b_zero, True))
    wide = np.float32
    rows = site.shape(a_scale)
    first = site.cast(a_scale, wide)
    if len(rows) == 1 and rows[0] > 1:
        first = site.reshape(first, (rows[0], 1))
    elif len(rows) == 1:
        first = site.reshape(first, ())
    second = site.cast(b_scale, wide)
    second = site.reshape(second, ()) if site.shape(b_scale) == (1,) else second
    third = site.cast(y_scale, wide)
    third = site.reshape(third, ()) if site.shape(y_scale) == (1,) else third
    point = site.reshape(y_zero, ()) if site.shape(y_zero) == (1,) else y_zero
    real = site.emit("Mul", site.cast(total, wide), site.emit("Mul", first, second))
    return [quantised(site, real, third, point, site.dtype(y_zero), wide)]


def _convolution(
    site: Site, x: str, w: str, x_zero: str, w_zero: str, wide: Any = "float64"
) -> str:
    """The convolution of integers, in floats that hold the sums exactly."""
    import numpy as np

    rank = len(site.shape(site.input(0)))
    data = site.cast(_integers(site, x, x_zero, True), wide)
    weight = site.cast(w, np.int32)
    if w_zero:
        own = site.shape(w_zero)
        shape = (own[0], *(1,) * (rank - 1)) if own and own[0] > 1 else ()
        weight = site.emit("Sub", weight, site.cast(site.reshape(w_zero, shape), np.int32))
    return site.emit("Conv", data, site.cast(weight, wide), **window_of(site))


def window_of(site: Site) -> dict[str, Any]:
    """The attributes of a convolution, for another one in its place."""
    return site.attributes("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def conv_integer(site: Site) -> Sequence[str]:
    import numpy as np

    x, w, x_zero, w_zero = (site.input(i) for i in range(4))
    weight = site.facts.constant(w)
    zero = site.facts.constant(w_zero) if w_zero else np.zeros((), np.int32)
    wide = "float64"
    if weight is not None and zero is not None:
        rows = weight.reshape(weight.shape[0], -1).astype(np.int64)
        rows = rows - zero.reshape(-1, 1).astype(np.int64)
        # float32 is twice as fast, and as exact while no sum is larger than it can count.
        wide = "float32" if 255 * np.abs(rows).sum(axis=1).max() < EXACT else wide
    return [site.cast(_convolution(site, x, w, x_zero, w_zero, wide), np.int32)]


def qlinear_conv(site: Site) -> Sequence[str]:
    import numpy as np

    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = (
        site.input(i) for i in range(9)
    )
    rank = len(site.shape(x))
    total = _convolution(site, x, w, x_zero, w_zero)

    def column(value: str) -> str:
        own = site.shape(value)
        many = own and own[0] > 1
        return site.reshape(value, (own[0], *(1,) * (rank - 2)) if many else ())

    if bias:
        shape = (site.shape(bias)[0], *(1,) * (rank - 2))
        total = site.emit("Add", total, site.cast(site.reshape(bias, shape), np.float64))
    scale = site.emit("Mul", site.reshape(x_scale, ()), column(w_scale))
    real = site.emit("Mul", site.cast(total, np.float32), scale)
    zero = site.reshape(y_zero, ())
    made = quantised(site, real, site.reshape(y_scale, ()), zero, site.dtype(y_zero), np.float32)
    return [made]


REWRITES = (
    Rewrite(("QLinearMatMul",), qlinear_matmul),
    Rewrite(("QLinearConv",), qlinear_conv),
    Rewrite(("ConvInteger",), conv_integer),
    Rewrite(("MatMulInteger",), matmul_integer, known=True),
    Rewrite(("QuantizeLinear",), quantize_linear, known=True),
    Rewrite(("DequantizeLinear",), dequantize_linear, known=True),
    Rewrite(("DynamicQuantizeLinear",), dynamic_quantize_linear, known=True),
)
