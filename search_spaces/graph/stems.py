"""Convolutions that read an image as it was given, its channels first.

Turning the image around is a pass over memory of its own, since TVM fuses nothing in front of a
convolution. Here the convolution reads the image where it lies, or turns it while it is padded.
"""

from __future__ import annotations

from typing import Any

from search_spaces.graph.expressions import shape_of
from search_spaces.graph.grouping import as_one_kernel, convolution, followers
from search_spaces.graph.rewriting import Graph, Place, Places
from search_spaces.task import Target

MOST_CHANNELS = 4
"""Images have few channels: with more of them, vectors of what was turned around pay."""


class StemSpace(Places):
    """A permutation whose result only one convolution with constant weights reads."""

    name = "graph.stems"
    laid_out = True
    order = 5

    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        found: dict[Any, Place] = {}
        for var in graph.values:
            members = _members(graph, var)
            if members:
                rewrites = {members[-1]: as_one_kernel(graph, members, "conv2d_stem")}
                found[members[-1]] = Place(rewrites, pays=False)
        return found


def _members(graph: Graph, var: Any) -> list[Any]:
    """The variables that become one kernel with the convolution ``var``; none if it reads on."""
    call = convolution(graph, var)
    if call is None or int(call.attrs.groups) != 1:
        return []
    image = call.args[0]
    channels = (shape_of(image) or [0])[-1]
    if graph.call(image, "permute_dims") is None or channels > MOST_CHANNELS:
        return []
    return [] if graph.only_user(image) is None else [image, var, *followers(graph, var)]
