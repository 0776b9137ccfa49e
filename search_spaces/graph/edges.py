"""Which operators stay apart that TVM would fuse.

TVM fuses whatever its rules allow. That is nearly always right, but not where a chain is computed
again for each element of a reduction that reads it twice, or where an epilogue takes registers from
the loop that it follows: so for each edge between operators it is a choice.
"""

from __future__ import annotations

from typing import Any

from search_spaces.graph.expressions import shape_of
from search_spaces.graph.grouping import ELEMENTWISE, apart
from search_spaces.graph.rewriting import Graph, Place, Places
from search_spaces.task import Target

_ANCHORS = frozenset(
    ["matmul", "nn.avg_pool2d", "nn.conv2d", "nn.max_pool2d", "max", "mean", "min", "sum"]
)
"""What elementwise operators are fused to when they follow."""

_READERS = frozenset(["max", "mean", "min", "nn.layer_norm", "nn.softmax", "sum"])
"""What elementwise operators are fused to when they come before."""

_FUSED = frozenset(ELEMENTWISE)


class EdgeSpace(Places):
    """Operators whose result is written to memory although what follows could be fused to them.

    Alike are edges between the same operators on tensors of the same shape.
    """

    name = "graph.edges"
    laid_out = True
    order = 30

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        for var in graph.values:
            readers = _fused_after(graph, var)
            if readers:
                sizes = "x".join(map(str, shape_of(var) or ()))
                kind = f"{graph.operator(var)} | {', '.join(readers)} {sizes}"
                found[var] = Place({var: apart(graph, var)}, kind, pays=False)
        return found


def _fused_after(graph: Graph, var: Any) -> list[str]:
    """The operators that TVM fuses to the one that ``var`` is the result of, by their order."""
    own = graph.operator(var)
    if (own not in _ANCHORS and own not in _FUSED) or shape_of(var) is None:
        return []
    readers = []
    for user in graph.users[var]:
        name = graph.operator(user)
        follows = name in _FUSED and shape_of(user) == shape_of(var)
        if follows or (name in _READERS and own in _FUSED):
            readers.append(name)
    return sorted(set(readers))
