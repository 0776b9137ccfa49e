"""Convolutions of a concatenation, as the sum of convolutions of its parts.

A concatenation is a pass over memory that computes nothing, and its parts come from kernels that
could have been the last to touch them. Pooling on the way is done part by part. The sum is written
and read once more instead: that pays where the convolution makes few channels out of many.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from search_spaces.graph.expressions import array, dtype_of, is_constant, shape_of
from search_spaces.graph.rewriting import Emit, Graph, Place, Places, Rewrite, See
from search_spaces.task import Target

_POOLS = ("nn.max_pool2d", "nn.avg_pool2d")


class ConcatSpace(Places):
    """Convolutions whose data is a concatenation along the channels, pooled or not."""

    name = "graph.concats"
    order = 30

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        for var in graph.values:
            rewrite = _split(graph, var)
            if rewrite is not None:
                found[var] = Place({var: rewrite}, pays=_pays(graph, var))
        return found


def _pays(graph: Graph, var: Any) -> bool:
    """Whether the concatenation is much larger than what is written twice instead.

    ``_split`` makes sure that nobody else reads it.
    """
    call = graph.call(var, "nn.conv2d")
    parts = len(graph.call(_source(graph, call.args[0]), "concat").args[0].fields)
    inputs, outputs = (shape_of(expr) or [0, 0] for expr in (call.args[0], var))
    return inputs[1] >= 2 * (parts - 1) * outputs[1]


def _source(graph: Graph, data: Any) -> Any:
    """What is pooled where ``data`` is; else ``data``."""
    pool = graph.call(data, *_POOLS)
    return data if pool is None else pool.args[0]


def _split(graph: Graph, var: Any) -> Rewrite | None:
    call = graph.call(var, "nn.conv2d")
    if call is None or call.attrs.data_layout != "NCHW" or call.attrs.kernel_layout != "OIHW":
        return None
    data, weight = call.args
    joined = _source(graph, data)
    concat = graph.call(joined, "concat")
    fields = getattr(concat.args[0], "fields", None) if concat is not None else None
    if fields is None or int(call.attrs.groups) != 1 or not is_constant(weight):
        return None
    shapes = [shape_of(field) for field in fields]
    if any(shape is None or len(shape) != 4 for shape in shapes) or dtype_of(var) != "float32":
        return None
    if concat.attrs.axis is None or int(concat.attrs.axis) % 4 != 1:
        return None
    if graph.only_user(joined) is None or graph.only_user(data) is None:
        return None
    pool = graph.call(data, *_POOLS)

    def rewrite(emit: Emit, see: See) -> Any:
        kernel = array(weight)
        begin, total = 0, None
        for field, shape in zip(fields, shapes, strict=True):
            end = begin + (shape or [0, 0])[1]
            part = see(field)
            if pool is not None:
                part = emit(relax.Call(pool.op, [part], pool.attrs, pool.ty_args))
            own = relax.const(kernel[:, begin:end].copy())
            made = emit(relax.Call(call.op, [part, own], call.attrs, call.ty_args))
            total = made if total is None else emit(relax.op.add(made, total))
            begin = end
        return total

    return rewrite
