"""Operators of numbers stored in 8 bits that are none of sums of products: in floats in between.

ONNX Runtime computes most of them by tables of floats, or so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autotune.frontends.onnx_contrib.scales import real, stored
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

MICROSOFT = "com.microsoft"


def pairwise(site: Site) -> Sequence[str]:
    """QLinearAdd and QLinearMul."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = (site.input(i) for i in range(8))
    operator = {"QLinearAdd": "Add", "QLinearMul": "Mul"}[site.operator]
    made = site.emit(operator, real(site, a, a_scale, a_zero), real(site, b, b_scale, b_zero))
    return [stored(site, made, scale, zero, like=a)]


def _alone(compute: Callable[[Site, str], str]) -> Callable[[Site], Sequence[str]]:
    """A rewrite of an operator of one tensor: number, scale, zero; scale and zero of the result."""

    def rewrite(site: Site) -> Sequence[str]:
        x, scale, zero, y_scale, y_zero = (site.input(i) for i in range(5))
        return [stored(site, compute(site, real(site, x, scale, zero)), y_scale, y_zero, like=x)]

    return rewrite


def _sigmoid(site: Site, x: str) -> str:
    return site.emit("Sigmoid", x)


def _leaky_relu(site: Site, x: str) -> str:
    if not site.input(4):
        # ONNX Runtime, which it would be compared with, ends the process.
        raise Unknown("a QLinearLeakyRelu whose result has no zero point")
    return site.emit("LeakyRelu", x, alpha=site.attribute("alpha", 0.01))


def softmax(site: Site) -> Sequence[str]:
    """QLinearSoftmax, whose scale is a whole number of steps in one.

    ONNX Runtime multiplies by that whole number, rounded down: of the scale 1/255 it is 254 steps,
    since the float is a little larger.
    """
    import numpy as np

    x, scale, zero, y_scale, y_zero = (site.input(i) for i in range(5))
    steps = np.floor(np.float32(1) / site.constant(y_scale).astype(np.float32).reshape(()))
    if steps < 1:
        raise Unknown("a QLinearSoftmax whose result is 0 or 1")
    made = _probabilities(site, real(site, x, scale, zero))
    return [stored(site, made, np.float32(1 / steps), y_zero, like=x)]


def _probabilities(site: Site, x: str) -> str:
    import numpy as np

    joined = site.attribute("opset", 13) < 13
    axis = site.attribute("axis", 1 if joined else -1)
    if site.facts.opset >= 13 and not joined:
        return site.emit("Softmax", x, axis=axis)
    shape = site.shape(site.input(0))
    axis %= len(shape)
    if axis == len(shape) - 1:
        return site.emit("Softmax", x, axis=axis)
    if not joined:
        raise Unknown("a QLinearSoftmax of another axis than the last before opset 13")
    # Before opset 13 all axes from the one given on are one.
    rows = int(np.prod(shape[:axis]))
    return site.reshape(site.emit("Softmax", site.reshape(x, (rows, -1)), axis=1), shape)


def channels_first(site: Site, x: str, rank: int) -> str:
    """``x`` with its last axis, the channels, second."""
    return site.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def channels_last(site: Site, x: str, rank: int) -> str:
    return site.transpose(x, (0, *range(2, rank), 1))


POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _pool(site: Site, x: str) -> str:
    options = site.attributes(*POOL)
    if not site.attribute("channels_last", 0):
        return site.emit("AveragePool", x, **options)
    rank = len(options["kernel_shape"]) + 2
    return channels_last(
        site, site.emit("AveragePool", channels_first(site, x, rank), **options), rank
    )


def _global_pool(site: Site, x: str) -> str:
    if not site.attribute("channels_last", 0):
        return site.emit("GlobalAveragePool", x)
    rank = len(site.shape(site.input(0)))
    return channels_last(site, site.emit("GlobalAveragePool", channels_first(site, x, rank)), rank)


def concat(site: Site) -> Sequence[str]:
    scale, zero = site.input(0), site.input(1)
    parts = [
        real(site, site.input(place), site.input(place + 1), site.input(place + 2))
        for place in range(2, len(site.node.input), 3)
    ]
    made = site.emit("Concat", *parts, axis=site.attribute("axis"))
    return [stored(site, made, scale, zero)]


def where(site: Site) -> Sequence[str]:
    condition, x, x_scale, x_zero, y, y_scale, y_zero, scale, zero = (
        site.input(i) for i in range(9)
    )
    made = site.emit(
        "Where", condition, real(site, x, x_scale, x_zero), real(site, y, y_scale, y_zero)
    )
    return [stored(site, made, scale, zero, like=x)]


def linear(site: Site) -> Sequence[str]:
    """QuantizeLinear and DequantizeLinear, as ONNX has them since opset 10."""
    x, scale, zero = (site.input(i) for i in range(3))
    axis = site.attribute("axis")
    if site.operator == "DequantizeLinear":
        return [real(site, x, scale, zero, axis)]
    told: list[Any] = [scale, zero] if zero else [scale]
    attributes = {} if axis is None else {"axis": axis}
    return [site.emit("QuantizeLinear", x, *told, **attributes)]


def max_pool(site: Site) -> Sequence[str]:
    """NhwcMaxPool."""
    options = site.attributes(
        "auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"
    )
    rank = len(options["kernel_shape"]) + 2
    pooled = site.emit("MaxPool", channels_first(site, site.input(0), rank), **options)
    return [channels_last(site, pooled, rank)]


REWRITES = (
    Rewrite(("QLinearAdd", "QLinearMul"), pairwise, domain=MICROSOFT),
    Rewrite(("QLinearSigmoid",), _alone(_sigmoid), domain=MICROSOFT),
    Rewrite(("QLinearLeakyRelu",), _alone(_leaky_relu), domain=MICROSOFT),
    Rewrite(("QLinearSoftmax",), softmax, domain=MICROSOFT),
    Rewrite(("QLinearAveragePool",), _alone(_pool), domain=MICROSOFT),
    Rewrite(("QLinearGlobalAveragePool",), _alone(_global_pool), domain=MICROSOFT),
    Rewrite(("QLinearConcat",), concat, domain=MICROSOFT),
    Rewrite(("QLinearWhere",), where, domain=MICROSOFT),
    Rewrite(("QuantizeLinear", "DequantizeLinear"), linear, domain=MICROSOFT),
    Rewrite(("NhwcMaxPool",), max_pool, domain=MICROSOFT),
)
