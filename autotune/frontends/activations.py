"""What a recurrent step does to one number, as expressions that stay in vector registers."""

from __future__ import annotations

from typing import Any

Activation = tuple[str, float, float]
"""Name in ONNX's spelling, alpha and beta (0.0 where it has none)."""

NAMES = (
    *("Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus"),
    *("Softsign", "Tanh", "ThresholdedRelu"),
)

_BOUND = 7.90531110763549805
_ABOVE = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11,
          5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04,
          4.89352455891786e-03)  # fmt: skip
_BELOW = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def expression(activation: Activation, x: Any) -> Any:
    """``activation`` of the float32 expression ``x``, in a block that is being built."""
    from tvm import tirx

    x = once(x)
    name, alpha, beta = activation
    a, b, zero, one = (tirx.const(v, "float32") for v in (alpha, beta, 0.0, 1.0))
    if name == "Tanh":
        return _tanh(x)
    if name == "Sigmoid":
        # exp would do as well, but its bits cannot be followed in float64.
        half = tirx.const(0.5, "float32")
        return half * _tanh(half * x) + half
    if name == "Relu":
        return tirx.max(x, zero)
    if name == "Affine":
        return a * x + b
    if name == "ScaledTanh":
        return a * _tanh(b * x)
    if name == "HardSigmoid":
        return tirx.max(zero, tirx.min(one, a * x + b))
    if name == "LeakyRelu":
        return tirx.Select(x < zero, a * x, x)
    if name == "ThresholdedRelu":
        return tirx.Select(x > a, x, zero)
    if name == "Softsign":
        return x / (one + tirx.abs(x))
    if name == "Elu":
        return tirx.Select(x < zero, a * (tirx.exp(tirx.min(x, zero)) - one), x)
    if name == "Softplus":
        return tirx.max(x, zero) + tirx.log(one + tirx.exp(-tirx.abs(x)))
    raise ValueError(f"no activation is called {name}")


def _tanh(x: Any) -> Any:
    """Eigen's rational function, right to a few units in the last place."""
    from tvm import tirx

    def f(value: float) -> Any:
        return tirx.const(value, "float32")

    def polynomial(factors: tuple[float, ...], square: Any) -> Any:
        made = f(factors[0])
        for factor in factors[1:]:
            made = made * square + f(factor)
        return made

    x = once(tirx.max(tirx.min(x, f(_BOUND)), f(-_BOUND)))
    square = once(x * x)
    return x * polynomial(_ABOVE, square) / polynomial(_BELOW, square)


def once(value: Any) -> Any:
    """A name for ``value``, which is computed once however often it is used.

    Expressions are trees: what is written into one twice is there twice, and a polynomial of a
    polynomial would be thousands of operations.
    """
    from tvm.script.ir_builder import tirx as T

    return T.Bind(value)
