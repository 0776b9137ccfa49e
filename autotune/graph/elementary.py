"""Elementary functions that stay in vector registers.

LLVM calls the C library once for each element of a vector of exp, erf or tanh. The polynomials
of TOPI (Cephes for exp, Eigen's rational functions for erf and tanh) stay in vector registers,
and are right to a few units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx, topi

Legaliser = Callable[[Any, Any], Any]


Computation = Callable[[te.Tensor, Any], te.Tensor]
"""The result, from the operand and the attributes of the operator."""


def _float32(compute: Computation) -> Legaliser:
    """A legaliser that uses ``compute`` on float32 and leaves other dtypes to TVM."""

    def legalise(builder: Any, call: Any) -> Any:
        if str(call.args[0].ty.dtype) != "float32":
            return call.op.get_attr("FLegalize")(builder, call)
        return builder.call_te(
            lambda x: compute(x, call.attrs),
            call.args[0],
            primfunc_name_hint=call.op.name.rpartition(".")[2],
        )

    return legalise


def _unary(compute: Callable[[te.Tensor], te.Tensor]) -> Legaliser:
    return _float32(lambda x, _: compute(x))


def _sigmoid(x: te.Tensor) -> te.Tensor:
    one = tirx.const(1.0, "float32")
    e = topi.fast_exp(topi.negative(x))
    return te.compute(x.shape, lambda *i: one / (one + e[i]), name="sigmoid", tag=topi.tag.ELEMWISE)


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


def _gelu(x: te.Tensor) -> te.Tensor:
    half, root = tirx.const(0.5, "float32"), tirx.const(0.5**0.5, "float32")
    inner = topi.add(topi.fast_erf(topi.multiply(x, root)), tirx.const(1.0, "float32"))
    return topi.multiply(topi.multiply(x, half), inner)


def _log(x: te.Tensor) -> te.Tensor:
    """Cephes' logf: a polynomial on [sqrt(1/2), sqrt(2)), the exponent taken out of the bits."""

    return te.compute(x.shape, lambda *i: _logarithm(x[i]), name="log", tag=topi.tag.ELEMWISE)


_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip


def _logarithm(x: Any) -> Any:
    def f(value: float) -> Any:
        return tirx.const(value, "float32")

    def n(value: int) -> Any:
        return tirx.const(value, "int32")

    # Numbers too small for an exponent of their own are scaled up by 2**25 first.
    tiny = x < f(1.1754943508222875e-38)
    scaled = tirx.Select(tiny, x * f(33554432.0), x)
    bits = tirx.reinterpret("int32", scaled)
    fraction = tirx.bitwise_and(bits, n(0x7FFFFF))
    mantissa = tirx.reinterpret("float32", tirx.bitwise_or(fraction, n(0x3F000000)))
    exponent = tirx.shift_right(bits, n(23)) - n(126) - tirx.Select(tiny, n(25), n(0))
    low = mantissa < f(0.7071067811865476)
    m = tirx.Select(low, mantissa + mantissa, mantissa) - f(1.0)
    e = tirx.Cast("float32", tirx.Select(low, exponent - n(1), exponent))
    square = m * m
    y = f(_LOG[0])
    for factor in _LOG[1:]:
        y = y * m + f(factor)
    y = y * m * square + e * f(-2.12194440e-4) - f(0.5) * square
    found = m + y + e * f(0.693359375)
    infinite = f(float("inf"))
    ordinary = tirx.all(x > f(0.0), x < infinite)
    # Of what is left, infinity and NaN are their own logarithms.
    rest = tirx.Select(x < f(0.0), f(float("nan")), tirx.Select(x == f(0.0), -infinite, x))
    return tirx.Select(ordinary, found, rest)


def _softplus(x: te.Tensor, attributes: Any) -> te.Tensor:
    """log(1 + exp(b x)) / b, and x itself above the threshold."""
    b, threshold = (
        tirx.const(float(value), "float32") for value in (attributes.beta, attributes.threshold)
    )
    e = topi.fast_exp(topi.multiply(x, b))
    grown = _log(topi.add(e, tirx.const(1.0, "float32")))
    return te.compute(
        x.shape,
        lambda *i: tirx.Select(x[i] * b > threshold, x[i], grown[i] / b),
        name="softplus",
        tag=topi.tag.ELEMWISE,
    )


_EXP = (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 0.5, 1.0, 1.0)


def _falling(x: Any) -> Any:
    """exp(x) of what is not positive, as Cephes has it; 0 where a float has no exponent for it."""

    def f(value: float) -> Any:
        return tirx.const(value, "float32")

    bounded = tirx.max(x, f(-88.37626))
    n = tirx.floor(bounded * f(1.44269504) + f(0.5))
    rest = bounded - n * f(0.6931471806)
    y = f(_EXP[0])
    for factor in _EXP[1:]:
        y = y * rest + f(factor)
    bits = tirx.Cast("int32", n + f(127.0)) << 23
    return tirx.reinterpret("float32", bits) * y


def _softmax(x: te.Tensor, attributes: Any) -> te.Tensor:
    """Shifted by the largest, and divided by the sum once a row."""
    axis = int(attributes.axis) % len(x.shape)
    largest = topi.max(x, axis=axis, keepdims=True)

    def row(index: Any) -> Any:
        return (*index[:axis], 0, *index[axis + 1 :])

    grown = te.compute(x.shape, lambda *i: _falling(x(*i) - largest(*row(i))), name="softmax_exp")
    total = topi.sum(grown, axis=axis, keepdims=True)
    one = tirx.const(1.0, "float32")
    share = te.compute(total.shape, lambda *i: one / total(*i), name="softmax_share")
    return te.compute(x.shape, lambda *i: grown(*i) * share(*row(i)), name="softmax")


def _log_softmax(x: te.Tensor, attributes: Any) -> te.Tensor:
    axis = int(attributes.axis)
    shifted = topi.subtract(x, topi.max(x, axis=axis, keepdims=True))
    total = topi.sum(topi.fast_exp(shifted), axis=axis, keepdims=True)
    return topi.subtract(shifted, _log(total))


def _layer_norm(builder: Any, call: Any) -> Any:
    """Two passes over a row: the mean of squares less the square of the mean, which TOPI takes,
    loses its digits where the mean is large beside the deviation."""
    a, rank = call.attrs, len(call.args[0].ty.shape.values)
    last = [int(axis) % rank for axis in a.axes] == [rank - 1] and a.center and a.scale
    if not last or any(str(arg.ty.dtype) != "float32" for arg in call.args):
        return call.op.get_attr("FLegalize")(builder, call)
    epsilon = tirx.const(float(a.epsilon), "float32")

    def normalised(x: te.Tensor, gamma: te.Tensor, beta: te.Tensor) -> te.Tensor:
        part = tirx.const(1.0 / int(x.shape[-1]), "float32")
        rows = (*x.shape[:-1], 1)
        total = topi.sum(x, axis=-1, keepdims=True)
        centred = te.compute(
            x.shape, lambda *i: x(*i) - total(*i[:-1], 0) * part, name="norm_centred"
        )
        squares = te.compute(x.shape, lambda *i: centred(*i) * centred(*i), name="norm_squares")
        spread = topi.sum(squares, axis=-1, keepdims=True)
        scale = te.compute(
            rows, lambda *i: tirx.rsqrt(spread(*i) * part + epsilon), name="norm_scale"
        )
        return te.compute(
            x.shape,
            lambda *i: centred(*i) * scale(*i[:-1], 0) * gamma(i[-1]) + beta(i[-1]),
            name="layer_norm",
        )

    return builder.call_te(normalised, *call.args, primfunc_name_hint="layer_norm")


TABLE: dict[str, Legaliser] = {
    "relax.exp": _unary(topi.fast_exp),
    "relax.log": _unary(_log),
    "relax.erf": _unary(topi.fast_erf),
    "relax.tanh": _unary(topi.fast_tanh),
    "relax.sigmoid": _unary(_sigmoid),
    "relax.nn.silu": _unary(_silu),
    "relax.nn.gelu": _unary(_gelu),
    "relax.nn.softplus": _float32(_softplus),
    "relax.nn.softmax": _float32(_softmax),
    "relax.nn.log_softmax": _float32(_log_softmax),
    "relax.nn.layer_norm": _layer_norm,
}
