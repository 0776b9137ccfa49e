"""A depthwise convolution and the pointwise one after it as one kernel.

What lies between them is as large as an image and is read once: computed a band at a time it stays
in the cache. What follows the pointwise convolution element by element belongs to the kernel too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from search_spaces.graph.expressions import is_constant, shape_of
from search_spaces.graph.grouping import ELEMENTWISE, as_one_kernel, convolution, followers
from search_spaces.graph.rewriting import Graph, Place, Places
from search_spaces.task import Target


class SeparableSpace(Places):
    """Depthwise, elementwise, pointwise; nobody else reads what is between."""

    name = "graph.separable"
    laid_out = True
    order = 20

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        taken: set[Any] = set()
        for var in graph.values:
            members = _members(graph, var)
            if members is None or taken & set(members):
                continue
            taken |= set(members)
            rewrites = {members[-1]: as_one_kernel(graph, members, "separable")}
            found[members[-1]] = Place(rewrites, _kind(graph, members), pays=False)
        return found


def _kind(graph: Graph, members: Sequence[Any]) -> str:
    """What goes in, the window, the channels that come out, and how many operators there are."""
    depthwise = graph.values[members[0]]
    sizes = "x".join(map(str, shape_of(depthwise.args[0]) or ()))
    window = "x".join(map(str, (shape_of(depthwise.args[1]) or [])[:2]))
    outputs = (shape_of(members[-1]) or [0])[-1]
    stride = int(depthwise.attrs.strides[0])
    return f"{sizes}, {window}/{stride}, {outputs} out, {len(members)} operators"


def _members(graph: Graph, pointwise: Any) -> list[Any] | None:
    """The variables that become one kernel with the pointwise convolution ``pointwise``, if any."""
    call = convolution(graph, pointwise)
    if call is None or not _is_pointwise(call):
        return None
    between = _between(graph, call.args[0])
    if between is None:
        return None
    own = {*between, pointwise}
    # Nobody else reads what is between.
    if any(user not in own for var in between for user in graph.users[var]):
        return None
    if graph.results & set(between):
        return None
    return [var for var in graph.values if var in own] + followers(graph, pointwise)


def _is_pointwise(call: Any) -> bool:
    a = call.attrs
    ones = [int(v) for v in (*a.strides, *a.dilation)] == [1] * 4
    window = (shape_of(call.args[1]) or [])[:2] == [1, 1]
    return ones and window and int(a.groups) == 1 and not any(int(p) for p in a.padding)


def _between(graph: Graph, data: Any) -> set[Any] | None:
    """All from a depthwise convolution up to ``data``, element by element; None if it is not so."""
    shape = shape_of(data)
    found: set[Any] = set()
    open_ = [data]
    depthwise = None
    while open_:
        var = open_.pop()
        if var in found:
            continue
        if not isinstance(var, relax.Var) or shape_of(var) != shape:
            return None
        found.add(var)
        call = convolution(graph, var)
        if call is not None:
            groups = int(call.attrs.groups)
            if depthwise is not None or groups != (shape or [0])[-1] or groups == 1:
                return None
            if (shape_of(call.args[0]) or [0])[-1] != groups:
                return None
            depthwise = var
            continue
        step = graph.call(var, *ELEMENTWISE)
        if step is None:
            return None
        open_ += [arg for arg in step.args if not _small(arg, shape)]
    return found if depthwise is not None else None


def _small(expr: Any, shape: list[int] | None) -> bool:
    """Whether ``expr`` is a number, or constants along the channels."""
    return not isinstance(expr, relax.Var) and (
        not is_constant(expr) or (shape_of(expr) or [1])[-1:] in ([1], (shape or [])[-1:])
    )
