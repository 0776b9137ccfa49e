"""Layer normalisations that exporters spell out, as the one operator that they are.

Spelled out they are three passes over memory: no operator is fused across a reduction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from search_spaces.graph.expressions import array, dtype_of, is_constant, shape_of
from search_spaces.graph.rewriting import Emit, Graph, Place, Places, Rewrite, See
from search_spaces.task import Target


class NormSpace(Places):
    """(x - mean) / sqrt(variance + epsilon), scaled and shifted or not, over the last axis."""

    name = "graph.norms"
    order = 10

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        for var in graph.values:
            norm = _norm(graph, var)
            if norm is not None:
                last, rewrite = norm
                found[last] = Place({last: rewrite})
        return found


def _norm(graph: Graph, var: Any) -> tuple[Any, Rewrite] | None:
    """The variable and the new value of the normalisation whose quotient ``var`` is."""
    parts = _quotient(graph, var)
    if parts is None:
        return None
    centred, root = parts
    total = graph.call(root.args[0], "add")
    if total is None or not _scalar(total.args[1]):
        return None
    epsilon = float(array(total.args[1]).reshape(()))
    mean = graph.call(total.args[0], "mean")
    square = None if mean is None or not _over_last(mean) else mean.args[0]
    x = _centred(graph, centred)
    if x is None or square is None or not _squares(graph, square, centred, x):
        return None
    shape = shape_of(x)
    if shape is None or dtype_of(x) != "float32":
        return None
    columns = shape[-1]
    gamma, beta = np.ones(columns, "float32"), np.zeros(columns, "float32")
    last = var
    scaled = graph.by_columns(last, "multiply", columns)
    if scaled is not None:
        last, gamma = scaled
    shifted = graph.by_columns(last, "add", columns)
    if shifted is not None:
        last, beta = shifted

    def rewrite(emit: Emit, see: See) -> Any:
        return relax.op.nn.layer_norm(
            see(x), relax.const(gamma), relax.const(beta), axes=[-1], epsilon=epsilon
        )

    return last, rewrite


def _quotient(graph: Graph, var: Any) -> tuple[Any, Any] | None:
    """What is divided, and the call of sqrt or rsqrt that it is divided by."""
    divided = graph.call(var, "divide")
    if divided is not None:
        root = graph.call(divided.args[1], "sqrt")
        return None if root is None else (divided.args[0], root)
    product = graph.call(var, "multiply")
    if product is not None:
        for one, other in (product.args, tuple(product.args)[::-1]):
            root = graph.call(other, "rsqrt")
            if root is not None:
                return one, root
    return None


def _centred(graph: Graph, expr: Any) -> Any:
    """x, where ``expr`` is x - mean(x) over the last axis; else None."""
    difference = graph.call(expr, "subtract")
    mean = None if difference is None else graph.call(difference.args[1], "mean")
    if difference is None or mean is None or not _over_last(mean):
        return None
    x = difference.args[0]
    return x if isinstance(x, relax.Var) and x.same_as(mean.args[0]) else None


def _over_last(mean: Any) -> bool:
    shape = shape_of(mean.args[0])
    axes = None if mean.attrs.axis is None else [int(axis) for axis in mean.attrs.axis]
    return bool(mean.attrs.keepdims) and shape is not None and axes in ([-1], [len(shape) - 1])


def _squares(graph: Graph, expr: Any, centred: Any, x: Any) -> bool:
    """Whether ``expr`` is the square of x - mean(x), be it ``centred`` or the same once more."""

    def same(other: Any) -> bool:
        if other.same_as(centred):
            return True
        again = _centred(graph, other)
        return again is not None and bool(again.same_as(x))

    power = graph.call(expr, "power")
    if power is not None:
        exponent = power.args[1]
        return _scalar(exponent) and bool(array(exponent).reshape(()) == 2) and same(power.args[0])
    square = graph.call(expr, "square")
    if square is not None:
        return same(square.args[0])
    product = graph.call(expr, "multiply")
    return product is not None and same(product.args[0]) and same(product.args[1])


def _scalar(expr: Any) -> bool:
    return is_constant(expr) and array(expr).size == 1
