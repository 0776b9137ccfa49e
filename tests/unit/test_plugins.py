"""What packages offer by entry point: a plugin that fails is told and passed over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from autotune.choice import Factories, factory
from autotune.errors import InputError
from autotune.plugins import kinds
from search_spaces import plugins
from search_spaces.plugins import Kind, Plugin, installed, made, names, plugin_named, usable

GROUP = "tests.plugins"


class Contract:
    name = ""


class Good(Contract):
    name = "good"


class Broken(Contract):
    def __init__(self) -> None:
        raise RuntimeError("no such\n  hardware")


class Leaves(Contract):
    def __init__(self) -> None:
        sys.exit("goodbye")


class Other:
    name = "other"


def tool(seed: int, size: int = 3, share: float = 0.5, loud: bool = False, word: str = "a") -> Any:
    """Made by name, with settings."""
    if size < 0:
        raise ValueError(f"size cannot be {size}")
    return (seed, size, share, loud, word)


def demanding(seed: int, license: str) -> Any:
    """Needs what nobody gives."""


class Distribution:
    def __init__(self, name: str) -> None:
        self.name, self.version = name, "1.5"


KIND = Kind("thing", GROUP, made(Contract))
TOOLS: Factories[Any] = Factories("tool", GROUP, factory(lambda: Contract, "seed"), ("seed",))


def point(name: str, value: str, package: str = "p") -> EntryPoint:
    found = EntryPoint(name, f"{__name__}:{value}", GROUP)
    vars(found)["dist"] = Distribution(package)
    return found


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = [
        point("good", "Good"),
        point("a.broken", "Broken"),
        point("leaves", "Leaves"),
        point("missing", "Missing"),
        point("other", "Other"),
        point("alias", "Good"),
        point("tool", "tool"),
        point("demanding", "demanding"),
        point("z.ours", "Missing", "autotune"),
    ]
    points.append(point("good", "Good", "thief"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == GROUP else [])
    plugins.forget()
    yield
    plugins.forget()


def told() -> dict[str, Plugin[Any]]:
    return {plugin.name: plugin for plugin in reversed(installed(KIND))}


def test_a_plugin_that_fails_does_not_stop_the_others() -> None:
    assert [type(found).__name__ for found in usable(KIND)] == ["Good"]
    found = told()
    assert found["good"].state == "loaded" and not found["good"].error
    assert (found["good"].package, found["good"].version) == ("p", "1.5")
    assert found["a.broken"].state == "failed"
    assert found["a.broken"].error == "RuntimeError: no such hardware"
    assert found["missing"].error.startswith("AttributeError")
    assert found["leaves"].error == "SystemExit: goodbye"


def test_what_is_none_of_its_kind_is_not_taken() -> None:
    found = told()
    assert "Other is no Contract" in found["other"].error
    assert "calls itself 'good' and the entry point 'alias'" in found["alias"].error


def test_a_name_belongs_to_the_first_package_and_ours_comes_first() -> None:
    assert installed(KIND)[0].name == "z.ours"
    _, second = [plugin for plugin in installed(KIND) if plugin.name == "good"]
    assert second.package == "thief" and second.error == "its name is taken by p"


def test_each_that_fails_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    usable(KIND)
    usable(KIND)
    lines = [line for line in caplog.messages if "a.broken" in line]
    assert lines == [
        "thing 'a.broken' of p 1.5 is skipped, since it does not load: RuntimeError: no such "
        "hardware"
    ]


def test_one_that_fails_when_it_is_asked_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    from autotune.testing.landscape import TARGET, TileSpace, make_task
    from search_spaces import registry

    class Fails(TileSpace):
        name = "fails"

        def matches(self, task: Any, target: Any) -> bool:
            raise ZeroDivisionError("no such\n  axis")

    registry.register(Fails())
    registry.register(TileSpace())
    try:
        task = make_task("a")
        for _ in range(2):
            assert [s.name for s in registry.matching(task, TARGET)] == [TileSpace.name]
    finally:
        registry.unregister("fails")
        registry.unregister(TileSpace.name)
    (warning,) = caplog.records
    assert "'fails' is passed over" in warning.getMessage()
    assert "ZeroDivisionError: no such axis" in warning.getMessage()


def test_nothing_is_loaded_to_choose_another(caplog: pytest.LogCaptureFixture) -> None:
    assert "good" in names(KIND) and len(set(names(KIND))) == len(names(KIND))
    chosen = plugin_named(KIND, "good")
    assert chosen is not None and isinstance(chosen.found, Good)
    assert plugin_named(KIND, "nothing") is None
    assert not caplog.messages


def test_a_choice_has_settings_of_the_kinds_of_their_defaults() -> None:
    assert TOOLS.choose("tool").make(seed=4, target="?") == (4, 3, 0.5, False, "a")
    chosen = TOOLS.choose("tool:size=7,share=1e-3,loud=true,word=b")
    assert chosen.make(seed=4) == (4, 7, 1e-3, True, "b")
    assert chosen.takes("seed") and not chosen.takes("target")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "no tool 'nothing': choose one of"),
        ("tool:seed=1", "no setting 'seed': what can be set is size, share, loud, word"),
        ("tool:size=1.5", "size of tool must be a whole number, not '1.5'"),
        ("tool:loud=maybe", "must be true or false"),
        ("tool:size=-1", "the tool tool says: size cannot be -1"),
        ("missing", "does not load .AttributeError.* uninstall the package"),
        ("demanding", "it needs 'license', and what it is given are seed"),
        ("other", "Other is no Contract"),
    ],
)
def test_a_wrong_choice_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TOOLS.choose(text).make(seed=0)


def test_every_kind_has_its_own_group_and_ours_are_plugins_like_others() -> None:
    from importlib.metadata import entry_points

    found = kinds()
    assert len({kind.group for kind in found}) == len({kind.title for kind in found}) == 7
    assert all(kind.group.startswith("autotune.") for kind in found)
    ours = {kind.title: {p.name for p in entry_points(group=kind.group)} for kind in found}
    assert {"onnx"} <= ours["frontend"]
    assert {"cost-model", "tpe", "random"} <= ours["sampler"]
    assert {"xgboost", "random"} <= ours["cost model"]
    assert {"local", "rpc"} <= ours["runner"]
    assert {"summary", "environment"} <= ours["report section"]
