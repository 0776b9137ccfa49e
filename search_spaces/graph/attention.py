"""Attention as one kernel: the scores of a few rows stay in the cache until they are used up.

Unfused, each head's scores are written, normalised and read again by kernels of their own, and
queries, keys and values are turned around in memory before. Here what turns them is part of the
kernel, and the sum of the weights divides the result instead of the weights (as in Dao et al.,
"FlashAttention", 2022; whole rows of scores fit the caches here, so nothing is rescaled).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from search_spaces.cpu.structure import LEAST_VECTOR
from search_spaces.graph.expressions import array, dtype_of, is_constant, shape_of
from search_spaces.graph.grouping import as_one_kernel
from search_spaces.graph.rewriting import Emit, Graph, Place, Places, Rewrite, See
from search_spaces.task import Target

_MOVES = ("permute_dims", "reshape", "strided_slice", "expand_dims", "squeeze")


@dataclass(frozen=True)
class _Attention:
    """``last`` is the result, ``scaled`` what leads from the scores to the ``weights``."""

    scores: Any
    scaled: tuple[Any, ...]
    weights: Any
    product: Any
    last: Any


class AttentionSpace(Places):
    """softmax(q kT, scaled and masked or not) v, for all heads of a layer."""

    name = "graph.attention"
    laid_out = True
    order = 10

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        for var in graph.values:
            attention = _attention(graph, var)
            if attention is not None:
                rewrites = {attention.last: _rewrite(graph, attention)}
                pays = _pays(graph, attention, target)
                found[attention.last] = Place(rewrites, _kind(graph, attention), pays)
        return found


def _pays(graph: Graph, found: _Attention, target: Target) -> bool:
    """Whether the scores of a layer are larger than the second-level caches.

    Smaller ones are read again as fast from there.
    """
    scores = 4 * prod(shape_of(found.weights) or ())
    return scores > target.threads * target.second_cache


def _kind(graph: Graph, found: _Attention) -> str:
    """Heads, queries, keys and columns of values."""
    sizes = [*(shape_of(found.weights) or ()), (shape_of(found.product) or [0])[-1]]
    return "x".join(map(str, sizes))


def _attention(graph: Graph, product: Any) -> _Attention | None:
    """The attention whose values are multiplied in ``product``."""
    call = graph.call(product, "matmul")
    softmax = None if call is None else graph.call(call.args[0], "nn.softmax")
    if softmax is None or dtype_of(product) != "float32":
        return None
    weights = call.args[0]
    shape, values = shape_of(weights), shape_of(call.args[1])
    if shape is None or values is None or len(shape) < 3 or shape[:-2] != values[:-2]:
        return None
    if shape[-1] % LEAST_VECTOR or values[-1] % LEAST_VECTOR or graph.only_user(weights) is None:
        return None
    if int(softmax.attrs.axis) not in (-1, len(shape) - 1):
        return None
    scaled = []
    scores = softmax.args[0]
    while graph.call(scores, "matmul") is None:
        step = graph.call(scores, "add", "subtract", "multiply", "divide")
        if step is None or graph.only_user(scores) is None:
            return None
        scaled.append(scores)
        (scores, *more) = [arg for arg in step.args if shape_of(arg) == shape] or [None]
        if scores is None or more or not isinstance(scores, relax.Var):
            return None
    queries, keys = map(shape_of, graph.call(scores, "matmul").args)
    if graph.only_user(scores) is None or queries is None or keys is None:
        return None
    if queries[:-2] != shape[:-2] or keys[:-2] != shape[:-2] or shape_of(scores) != shape:
        return None
    last = graph.only_user(product)
    turned = None if last is None else graph.call(last, "permute_dims")
    if turned is None or turned.attrs.axes is None or int(turned.attrs.axes[-1]) != len(shape) - 1:
        last = product
    return _Attention(scores, tuple(reversed(scaled)), weights, product, last)


def _rewrite(graph: Graph, found: _Attention) -> Rewrite:
    inner = {found.scores, *found.scaled, found.weights, found.product, found.last}
    q, k = graph.call(found.scores, "matmul").args
    operands = [q, k, graph.call(found.product, "matmul").args[1]]
    while operands:
        operand = operands.pop()
        moved = graph.call(operand, *_MOVES)
        if moved is not None and isinstance(operand, relax.Var):
            inner.add(operand)
            operands.append(moved.args[0])
    made: dict[str, Any] = {}

    def weights(emit: Emit, see: See) -> Any:
        scores = see(graph.values[found.weights].args[0])
        most = emit(relax.op.max(scores, axis=-1, keepdims=True))
        return relax.op.exp(emit(relax.op.subtract(scores, most)))

    def product(emit: Emit, see: See) -> Any:
        total = emit(relax.op.sum(see(found.weights), axis=-1, keepdims=True))
        made["sum"] = emit(see(graph.values[found.product]))
        return relax.op.divide(made["sum"], total)

    instead: dict[Any, Rewrite] = {found.weights: weights, found.product: product}
    for var in found.scaled:
        reciprocal = _reciprocal(graph, var)
        if reciprocal is not None:
            instead[var] = reciprocal
    members = [var for var in graph.values if var in inner]
    return as_one_kernel(graph, members, "attention", instead)


def _reciprocal(graph: Graph, var: Any) -> Rewrite | None:
    """A division by one number as a product, which costs a fraction of it."""
    call = graph.call(var, "divide")
    if call is None or not is_constant(call.args[1]) or array(call.args[1]).size != 1:
        return None
    value = np.asarray(1.0 / array(call.args[1]).reshape(()).astype("float64"), "float32")

    def rewrite(emit: Emit, see: See) -> Any:
        return relax.op.multiply(see(call.args[0]), relax.const(value))

    return rewrite
