"""Matrix products that read the same data, as one: queries, keys and values of an attention.

The data is read once, and one large product fills the registers better than several small ones.
Their results are parts of its rows, which whoever reads them has to pick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from search_spaces.graph.expressions import array, dtype_of, is_constant, shape_of
from search_spaces.graph.origins import joined_names, with_names
from search_spaces.graph.rewriting import Emit, Graph, Place, Places, Rewrite, See
from search_spaces.task import Target


@dataclass(frozen=True)
class _Product:
    """``last`` is the product with constant weights, after its bias where it has one."""

    product: Any
    last: Any
    weight: Any
    bias: Any


class ParallelSpace(Places):
    """Two products or more of one tensor with constant weights."""

    name = "graph.parallel"
    order = 20

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        by_data: dict[Any, list[_Product]] = {}
        for var in graph.values:
            found = _product(graph, var)
            if found is not None:
                data = graph.values[var].args[0]
                by_data.setdefault(data, []).append(found)
        places: dict[Any, Place] = {}
        for several in by_data.values():
            biased = [one for one in several if one.bias is not None]
            plain = [one for one in several if one.bias is None]
            for group in (biased, plain):
                if len(group) > 1:
                    places[group[0].product] = Place(_as_one(graph, group))
        return places


def _product(graph: Graph, var: Any) -> _Product | None:
    call = graph.call(var, "matmul")
    if call is None or not isinstance(call.args[0], relax.Var):
        return None
    weight = call.args[1]
    if not is_constant(weight) or len(shape_of(weight) or ()) != 2 or shape_of(var) is None:
        return None
    if dtype_of(var) != dtype_of(weight) or dtype_of(var) != dtype_of(call.args[0]):
        return None
    added = graph.by_columns(var, "add", _columns(weight))
    last, bias = (var, None) if added is None else added
    return _Product(var, last, weight, bias)


def _columns(weight: Any) -> int:
    return (shape_of(weight) or [0])[-1]


def _as_one(graph: Graph, group: Sequence[_Product]) -> Mapping[Any, Rewrite]:
    data = graph.values[group[0].product].args[0]
    whole: dict[str, Any] = {}

    def first(emit: Emit, see: See) -> Any:
        weight = np.concatenate([array(one.weight) for one in group], axis=1)
        names = joined_names(graph.values[var] for one in group for var in (one.product, one.last))
        made = emit(with_names(relax.op.matmul(see(data), relax.const(weight)), names))
        if group[0].bias is not None:
            bias = relax.const(np.concatenate([p.bias for p in group]))
            made = emit(with_names(relax.op.add(made, bias), names))
        whole["made"] = made
        # Nobody reads this where a bias follows: what is read is made in its place.
        return _part(made, 0, _columns(group[0].weight))

    rewrites: dict[Any, Rewrite] = {group[0].product: first}
    begin = 0
    for one in group:
        end = begin + _columns(one.weight)
        if one.last is not group[0].product:

            def part(emit: Emit, see: See, begin: int = begin, end: int = end) -> Any:
                return _part(whole["made"], begin, end)

            rewrites[one.last] = part
        begin = end
    return rewrites


def _part(whole: Any, begin: int, end: int) -> Any:
    axis = len(shape_of(whole) or ()) - 1
    return relax.op.strided_slice(whole, axes=[axis], begin=[begin], end=[end], assume_inbound=True)
