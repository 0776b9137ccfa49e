"""Products of numbers stored in 8 bits, whose scales are known: as exporters write them in floats.

Where the weights are no constants the rewrites of ``onnx_rewrites/quantised.py`` are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.dtypes import EXACT
from autotune.frontends.onnx_contrib.quantised import MICROSOFT, channels_first, channels_last
from autotune.frontends.onnx_contrib.scales import real, stored
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown, Value
from autotune.frontends.onnx_rewrites.quantised import limits_of, window_of


def _known(site: Site, *names: str) -> bool:
    return all(not name or site.facts.constant(name) is not None for name in names)


def _bias(site: Site, bias: str, scale: Any, axis: int = 0) -> str:
    """A bias of 32 bits, in units of the sum of products."""
    import numpy as np

    return real(site, bias, np.asarray(scale, np.float32).reshape(-1), axis=axis)


def convolution(site: Site) -> Sequence[str] | None:
    """QLinearConv; that of ONNX Runtime's own domain may have the channels last."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = (
        site.input(i) for i in range(9)
    )
    if not _known(site, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero):
        return None
    rank = site.constant(w).ndim
    turned = bool(site.attribute("channels_last", 0))
    data = real(site, channels_first(site, x, rank) if turned else x, x_scale, x_zero)
    given = [data, real(site, w, w_scale, w_zero, 0)]
    if bias:
        scale = site.constant(x_scale).reshape(()) * site.constant(w_scale).reshape(-1)
        given.append(_bias(site, bias, scale))
    made = stored(site, site.emit("Conv", *given, **window_of(site)), y_scale, y_zero)
    return [channels_last(site, made, rank) if turned else made]


def matmul(site: Site) -> Sequence[str] | None:
    """QLinearMatMul, but for a scale of each row of the first factor."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (site.input(i) for i in range(8))
    told = (a_scale, a_zero, b_scale, b_zero, y_scale, y_zero)
    if not _known(site, *told):
        return None
    single = [site.constant(name).size == 1 for name in told]
    columns = single[2] and single[3]
    known = site.facts.constant(b)
    if not all(single[:2]) or not all(single[4:]):
        return None
    if not columns and (known is None or known.ndim != 2 or site.constant(b_scale).ndim != 1):
        return None
    second = real(site, b, b_scale, b_zero, None if columns else 1)
    made = site.emit("MatMul", real(site, a, a_scale, a_zero), second)
    return [stored(site, made, y_scale, y_zero)]


def gemm(site: Site) -> Sequence[str]:
    """QGemm, which gives floats where it is told no scale of the result."""
    import numpy as np

    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = (site.input(i) for i in range(9))
    transposed = {name: site.attribute(name, 0) for name in ("transA", "transB")}
    # The factor of the product is a part of the scale, of which the third input is in units too.
    first = np.float32(site.attribute("alpha", 1.0)) * site.constant(a_scale).reshape(())
    second = site.constant(b_scale)
    columns = None if second.size == 1 else 0 if transposed["transB"] else 1
    given = [real(site, a, first, a_zero), real(site, b, b_scale, b_zero, columns)]
    if c:
        given.append(_bias(site, c, first * second, len(site.shape(c)) - 1))
    made = site.emit("Gemm", *given, **transposed)
    return [stored(site, made, y_scale, y_zero) if y_scale else made]


def matmul_integer(site: Site) -> Sequence[str] | None:
    """Of weights that are known, whatever zero point the data turns out to have.

    sum((a - zero) * w) = sum((a - middle) * w) - (zero - middle) * sum(w): what is summed up while
    the model runs is as if the zero point were known, so it is a product of 8-bit numbers.
    """
    import numpy as np

    a, b, a_zero, b_zero = (site.input(i) for i in range(4))
    stored_b, zero_b = site.facts.constant(b), np.zeros((), np.int32)
    if b_zero:
        known = site.facts.constant(b_zero)
        if known is None:
            return None
        zero_b = known.astype(np.int32)
    if stored_b is None or stored_b.ndim != 2 or zero_b.ndim > 1:
        return None
    whole = stored_b.astype(np.int32) - zero_b
    middle, turning = 0, False
    if a_zero:
        known = site.facts.constant(a_zero)
        turning = known is None
        if not _single(site, a_zero):
            return None
        middle = int(known.reshape(())) if known is not None else 0
        if turning and site.dtype(a) == np.uint8:
            middle = 128
    x = site.cast(a, np.int32)
    if middle:
        x = site.emit("Sub", x, np.asarray(middle, np.int32))
    # A sum that float32 may round is made in float64, which the kernels of integers take as well.
    low, high = limits_of(site.dtype(a))
    largest = float(np.abs(whole).sum(axis=0).max()) * max(high - middle, middle - low)
    wide = np.float32 if largest < EXACT else np.float64
    total = site.cast(site.emit("MatMul", site.cast(x, wide), whole.astype(wide)), np.int32)
    if turning:
        beside = site.cast(a_zero if _dynamic(site, a_zero) else site.reshape(a_zero, ()), np.int32)
        beside = site.emit("Sub", beside, np.asarray(middle, np.int32))
        columns = whole.sum(axis=0).astype(np.int32)
        total = site.emit("Sub", total, site.emit("Mul", beside, columns))
    return [total]


def _dynamic(site: Site, name: str) -> bool:
    """Whether a scale or zero point is one of DynamicQuantizeLinear's, which makes one number."""
    node = site.facts.maker(name)
    return node is not None and node.op_type == "DynamicQuantizeLinear"


def _single(site: Site, name: str) -> bool:
    return _dynamic(site, name) or math.prod(site.shape(name)) == 1


def to_float(site: Site) -> Sequence[str]:
    """MatMulIntegerToFloat: MatMulInteger, scaled."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (site.input(i) for i in range(7))
    if not _single(site, a_scale):
        raise Unknown("MatMulIntegerToFloat with a scale for each row")
    return [scaled(site, a, b, a_scale, b_scale, a_zero, b_zero, bias)]


def dynamic_matmul(site: Site) -> Sequence[str]:
    """DynamicQuantizeMatMul: the same, of floats that are stored in 8 bits first."""
    a, b, b_scale, b_zero, bias = (site.input(i) for i in range(5))
    data = site.emit("DynamicQuantizeLinear", a, outputs=3)
    return [scaled(site, data, b, f"{data}/1", b_scale, f"{data}/2", b_zero, bias)]


def scaled(
    site: Site,
    a: str,
    b: Value,
    a_scale: str,
    b_scale: Value,
    a_zero: str,
    b_zero: Value,
    bias: Value,
) -> str:
    """MatMulInteger of what is stored, by the scales of both and with a bias."""
    import numpy as np

    given = [a, b, a_zero, b_zero]
    while isinstance(given[-1], str) and not given[-1]:
        given.pop()
    total = site.cast(site.emit("MatMulInteger", *given), np.float32)
    made = site.emit("Mul", total, site.emit("Mul", a_scale, b_scale))
    return made if isinstance(bias, str) and not bias else site.emit("Add", made, bias)


REWRITES = (
    Rewrite(("QLinearConv",), convolution),
    Rewrite(("QLinearMatMul",), matmul),
    Rewrite(("MatMulInteger",), matmul_integer),
    Rewrite(("QLinearConv",), convolution, domain=MICROSOFT),
    Rewrite(("QGemm",), gemm, domain=MICROSOFT),
    Rewrite(("MatMulIntegerToFloat",), to_float, domain=MICROSOFT),
    Rewrite(("DynamicQuantizeMatMul",), dynamic_matmul, domain=MICROSOFT),
)
