"""Which graph spaces there are: ours, and those that installed packages offer by entry point."""

from __future__ import annotations

from search_spaces.graph.base import GraphSpace
from search_spaces.plugins import installed_plugins

GROUP = "autotune.graph_spaces"


def graph_spaces() -> tuple[GraphSpace, ...]:
    """Every graph space that could be loaded, in the order in which they are applied."""
    spaces: tuple[GraphSpace, ...] = installed_plugins(GROUP)[0]
    return tuple(sorted(spaces, key=lambda space: (space.laid_out, space.order, space.name)))
