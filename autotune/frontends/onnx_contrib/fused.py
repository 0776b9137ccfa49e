"""What ONNX Runtime's optimiser joins to one operator, in its parts: products and activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown
from autotune.frontends.onnx_rewrites.quantised import window_of


def _float(value: float) -> Any:
    import numpy as np

    return np.asarray(value, np.float32)


def _activated(site: Site, x: str, numbers: Sequence[float] | None = None) -> str:
    """``x`` after the activation that the node names, if any; ``numbers`` are its parameters."""
    name = site.attribute("activation", "")
    if numbers is None:
        given = (site.attribute(f"activation_{part}") for part in ("alpha", "beta", "gamma"))
        numbers = [number for number in given if number is not None]
    if not name:
        return x
    if name in ("Relu", "Sigmoid", "Tanh") and not numbers:
        return site.emit(name, x)
    if name == "LeakyRelu":
        return site.emit(name, x, alpha=numbers[0] if numbers else 0.01)
    if name == "HardSigmoid":
        alpha, beta = (*numbers, *(0.2, 0.5)[len(numbers) :])
        return site.emit(name, x, alpha=alpha, beta=beta)
    if name == "Clip" and len(numbers) == 2:
        low, high = (_float(number) for number in numbers)
        return site.emit("Max", site.emit("Min", x, high), low)
    raise Unknown(f"{site.operator} with the activation {name}")


def conv(site: Site) -> Sequence[str]:
    """FusedConv: what is added comes before the activation."""
    given = [site.input(0), site.input(1)]
    if site.input(2):
        given.append(site.input(2))
    made = site.emit("Conv", *given, **window_of(site))
    if site.input(3):
        made = site.emit("Add", made, site.input(3))
    return [_activated(site, made, site.attribute("activation_params", []))]


def gemm(site: Site) -> Sequence[str]:
    options = site.attributes("alpha", "beta", "transA", "transB")
    given = [name for name in site.node.input if name]
    return [_activated(site, site.emit("Gemm", *given, **options))]


def matmul(site: Site) -> Sequence[str]:
    """FusedMatMul: factors may have their last axes turned, and their first ones."""
    a, b = (_turned(site, site.input(i), letter) for i, letter in enumerate("AB"))
    made = site.emit("MatMul", a, b)
    alpha = site.attribute("alpha", 1.0)
    if alpha != 1.0:
        made = site.emit("Mul", made, _float(alpha))
    return [made]


def _turned(site: Site, name: str, letter: str) -> str:
    """A factor as a stack of matrices.

    Where its batches are turned its first axis comes to stand before the last, or after it.
    """
    last = site.attribute(f"trans{letter}", 0)
    first = site.attribute(f"transBatch{letter}", 0)
    if not last and not first:
        return name
    rank = len(site.shape(name))
    order = list(range(rank))
    if rank < 2:
        return name
    if first:
        order = [*order[1:-1], 0, rank - 1]
    if last:
        order[-2:] = reversed(order[-2:])
    return site.transpose(name, order)


def bias_gelu(site: Site) -> Sequence[str]:
    """Gelu and BiasGelu: by the error function."""
    x = site.input(0)
    return [_gelu(site, site.emit("Add", x, site.input(1)) if site.input(1) else x)]


def _gelu(site: Site, x: str) -> str:
    grown = site.emit("Erf", site.emit("Mul", x, _float(math.sqrt(0.5))))
    share = site.emit("Mul", site.emit("Add", grown, _float(1)), _float(0.5))
    return site.emit("Mul", x, share)


def fast_gelu(site: Site) -> Sequence[str]:
    """By the hyperbolic tangent."""
    x = site.input(0)
    x = site.emit("Add", x, site.input(1)) if site.input(1) else x
    cube = site.emit("Mul", site.emit("Mul", site.emit("Mul", x, x), x), _float(0.044715))
    inner = site.emit("Mul", site.emit("Add", x, cube), _float(math.sqrt(2 / math.pi)))
    share = site.emit("Mul", site.emit("Add", site.emit("Tanh", inner), _float(1)), _float(0.5))
    return [site.emit("Mul", x, share)]


def quick_gelu(site: Site) -> Sequence[str]:
    x, alpha = site.input(0), site.attribute("alpha", 1.702)
    scaled = x if alpha == 1 else site.emit("Mul", x, _float(alpha))
    return [site.emit("Mul", x, site.emit("Sigmoid", scaled))]


REWRITES = (
    Rewrite(("FusedConv",), conv, domain=MICROSOFT),
    Rewrite(("FusedGemm",), gemm, domain=MICROSOFT),
    Rewrite(("FusedMatMul", "TransposeMatMul"), matmul, domain=MICROSOFT),
    Rewrite(("Gelu", "BiasGelu"), bias_gelu, domain=MICROSOFT),
    Rewrite(("FastGelu",), fast_gelu, domain=MICROSOFT),
    Rewrite(("QuickGelu",), quick_gelu, domain=MICROSOFT),
)
