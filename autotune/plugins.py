"""Every kind of plugin, and what is installed of each."""

from __future__ import annotations

from typing import Any

from search_spaces.plugins import Kind, Plugin, installed


def kinds() -> tuple[Kind[Any], ...]:
    """In the order in which a model meets them."""
    from autotune.frontends import registry as frontends
    from autotune.measure.runners import RUNNERS
    from autotune.report.base import KIND as SECTIONS
    from autotune.search.models import COST_MODELS
    from autotune.search.samplers import KIND as SAMPLERS
    from search_spaces import registry as spaces
    from search_spaces.graph import registry as graphs

    return (frontends.KIND, graphs.KIND, spaces.KIND, SAMPLERS, COST_MODELS, RUNNERS, SECTIONS)


def plugins() -> tuple[Plugin[Any], ...]:
    """Every plugin of every kind, loaded or failed, with the package that brings it."""
    return tuple(plugin for kind in kinds() for plugin in installed(kind))
