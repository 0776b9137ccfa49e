"""Contract tests of every kind of plugin: subclass one class, give one fixture, inherit the suite.

    from autotune.testing import SearchSpaceTestCase

    class TestMySpace(SearchSpaceTestCase):
        @pytest.fixture
        def space(self):
            return MySpace()

Each class says what else may be given, and what it takes where nothing is. All need pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.testing.cost_models import CostModelTestCase
    from autotune.testing.frontends import FrontendTestCase
    from autotune.testing.graph_spaces import GraphSpaceTestCase
    from autotune.testing.report_sections import ReportSectionTestCase
    from autotune.testing.runner_contract import RunnerTestCase
    from autotune.testing.runners import AnalyticRunner
    from autotune.testing.samplers import SamplerTestCase
    from autotune.testing.spaces import SearchSpaceTestCase
    from autotune.testing.tasks import product, rectified, task_of

__all__ = [
    "AnalyticRunner",
    "CostModelTestCase",
    "FrontendTestCase",
    "GraphSpaceTestCase",
    "ReportSectionTestCase",
    "RunnerTestCase",
    "SamplerTestCase",
    "SearchSpaceTestCase",
    "product",
    "rectified",
    "task_of",
]

_HOMES = {
    "AnalyticRunner": "runners",
    "CostModelTestCase": "cost_models",
    "FrontendTestCase": "frontends",
    "GraphSpaceTestCase": "graph_spaces",
    "ReportSectionTestCase": "report_sections",
    "RunnerTestCase": "runner_contract",
    "SamplerTestCase": "samplers",
    "SearchSpaceTestCase": "spaces",
    "product": "tasks",
    "rectified": "tasks",
    "task_of": "tasks",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
