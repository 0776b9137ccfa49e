"""Convolutions and products with constant weights, and where their data comes from."""

from __future__ import annotations

from typing import Any

from tvm import relax

from search_spaces.graph.expressions import is_constant, shape_of
from search_spaces.graph.rewriting import Emit, Graph

VIEWS = ("permute_dims", "reshape", "expand_dims", "squeeze", "flatten")
"""Operators that only move numbers, by their names without "relax."."""


def sum_of_products(graph: Graph, var: Any) -> Any:
    """The call of a convolution or product that ``var`` is, each result of which is a sum over all
    channels by constant weights, columns last; None for anything else."""
    call = graph.call(var, "nn.conv2d", "matmul")
    return call if call is not None and is_constant(call.args[1]) and dense(call) else None


def dense(call: Any) -> bool:
    """Whether each result is a sum over all channels, in a layout that there are kernels for."""
    shape = shape_of(call.args[1]) or []
    if call.op.name == "relax.matmul":
        return len(shape) == 2 and len(shape_of(call.args[0]) or []) > 1
    a = call.attrs
    return int(a.groups) == 1 and (a.data_layout, a.kernel_layout) == ("NHWC", "HWIO")


def viewed(graph: Graph, expr: Any) -> tuple[Any, list[Any]]:
    """What ``expr`` is a view of, and the calls that make it, in their order."""
    views: list[Any] = []
    while (call := graph.call(expr, *VIEWS)) is not None:
        views.insert(0, call)
        expr = call.args[0]
    return expr, views


def view_of(emit: Emit, source: Any, views: list[Any]) -> Any:
    """``source`` seen through ``views`` of another tensor of its shape."""
    for call in views:
        source = emit(relax.Call(call.op, [source, *call.args[1:]], call.attrs, call.ty_args))
    return source
