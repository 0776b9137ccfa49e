"""What packages offer by entry point: a plugin that fails is told and passed over."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from search_spaces import plugins
from search_spaces.plugins import installed_plugins

GROUP = "tests.plugins"


class Good:
    name = "good"


class Broken:
    name = "broken"

    def __init__(self) -> None:
        raise RuntimeError("no such hardware")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"good": "Good", "a.broken": "Broken", "missing": "Missing"}
    points = [EntryPoint(name, f"{__name__}:{value}", GROUP) for name, value in names.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == GROUP else [])
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()


@pytest.mark.usefixtures("offered")
def test_a_plugin_that_fails_does_not_stop_the_others() -> None:
    found, failures = installed_plugins(GROUP)
    assert [type(plugin).__name__ for plugin in found] == ["Good"]
    told = {point.name: reason for point, reason in failures}
    assert told["a.broken"] == "RuntimeError: no such hardware"
    assert told["missing"].startswith("AttributeError")
