"""Which graph spaces there are: ours, and those that installed packages offer by entry point."""

from __future__ import annotations

from search_spaces.graph.base import GraphSpace
from search_spaces.plugins import Kind, made, usable

KIND = Kind("graph space", "autotune.graph_spaces", made(GraphSpace))  # type: ignore[type-abstract]


def graph_spaces() -> tuple[GraphSpace, ...]:
    """Every graph space that could be loaded, in the order in which they are applied."""
    return tuple(sorted(usable(KIND), key=lambda space: (space.laid_out, space.order, space.name)))
