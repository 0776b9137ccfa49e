"""What installed packages offer by entry point: the one loader for every kind of plugin."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

OURS = "autotune"
"""The package whose plugins come first: no other can take their names."""

_PACKAGES = {"autotune", "search_spaces", "cost_models"}

_blamed: set[type] = set()
"""Classes of plugins of which a warning told."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of plugin: how it is called, its entry-point group, and what it has to be.

    ``accept`` is given what an entry point names, and its name, and returns the plugin; it raises
    ``TypeError``, with the reason, for what is none.
    """

    title: str
    group: str
    accept: Callable[[Any, str], T]


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """One entry point: what was loaded, or why nothing was.

    ``package`` and ``version`` are those of the distribution that brings it, "" where that is not
    known. ``found`` is None exactly where ``error`` is not empty.
    """

    kind: str
    name: str
    package: str
    version: str
    found: T | None
    error: str = ""

    @property
    def state(self) -> str:
        """ "loaded" or "failed"."""
        return "failed" if self.error else "loaded"

    @property
    def origin(self) -> str:
        """ "search space 'my.kernels' of my-package 1.0", for sentences."""
        package = f"{self.package} {self.version}".strip() or "no package"
        return f"{self.kind} {self.name!r} of {package}"


@cache
def offered(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of ``group``, ours first, then by name and package; none is loaded."""
    return tuple(sorted(entry_points(group=group), key=_order))


def names(kind: Kind[Any]) -> tuple[str, ...]:
    """What can be chosen by name, in that order."""
    return tuple(dict.fromkeys(point.name for point in offered(kind.group)))


def installed(kind: Kind[T]) -> tuple[Plugin[T], ...]:
    """Every plugin of ``kind``, those that failed to load among them."""
    return _installed(kind)


def usable(kind: Kind[T]) -> tuple[T, ...]:
    """What could be loaded of ``kind``. What could not is logged as a warning, once."""
    return _usable(kind)


def plugin_named(kind: Kind[T], name: str) -> Plugin[T] | None:
    """The plugin ``name``, loaded or failed, without loading any other; None if there is none."""
    return _named(kind, name)


def answer(plugin: object, question: Callable[[], T], otherwise: T) -> T:
    """What ``plugin`` answers; ``otherwise`` where it raises, which is logged as a warning once.

    Errors of plugins that are part of autotune are raised.
    """
    try:
        return question()
    except Exception as fault:  # a plugin may fail in any way
        kind = type(plugin)
        if kind.__module__.partition(".")[0] in _PACKAGES:
            raise
        if kind not in _blamed:
            _blamed.add(kind)
            name = getattr(plugin, "name", kind.__name__)
            told = f"{type(fault).__name__}: {' '.join(str(fault).split())}"
            _log.warning("%r is passed over, since it fails: %s", name, told)
        return otherwise


def forget() -> None:
    """Look again: for a process in which packages were installed or taken away since."""
    for function in (offered, _installed, _usable, _named):
        function.cache_clear()


# Cached beside the functions above: a cache would hide their types.
@cache
def _installed(kind: Kind[Any]) -> tuple[Plugin[Any], ...]:
    first: dict[str, EntryPoint] = {}
    return tuple(
        _loaded(kind, point, first.setdefault(point.name, point)) for point in offered(kind.group)
    )


@cache
def _usable(kind: Kind[Any]) -> tuple[Any, ...]:
    plugins = installed(kind)
    for plugin in plugins:
        if plugin.error:
            _log.warning("%s is skipped, since it does not load: %s", plugin.origin, plugin.error)
    return tuple(plugin.found for plugin in plugins if plugin.found is not None)


@cache
def _named(kind: Kind[Any], name: str) -> Plugin[Any] | None:
    point = next((point for point in offered(kind.group) if point.name == name), None)
    return None if point is None else _loaded(kind, point, point)


def _loaded(kind: Kind[T], point: EntryPoint, first: EntryPoint) -> Plugin[T]:
    """What ``point`` names; failed where ``first``, another one, has the name already."""
    found, error = None, ""
    package, version = _distribution(point)
    if first is not point:
        error = f"its name is taken by {_distribution(first)[0] or 'another package'}"
    else:
        try:
            found = kind.accept(point.load(), point.name)
        except (Exception, SystemExit) as fault:  # a plugin may fail in any way
            error = f"{type(fault).__name__}: {' '.join(str(fault).split())}"
    return Plugin(kind.title, point.name, package, version, found, error)


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    package = _distribution(point)[0]
    return package != OURS, point.name, package


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that brings ``point``; "" where its metadata is damaged."""
    try:
        return (point.dist.name or "", point.dist.version or "") if point.dist else ("", "")
    except Exception:  # metadata of others, damaged in any way
        return "", ""


def made(contract: type[T]) -> Callable[[Any, str], T]:
    """Accepts classes of ``contract`` that can be made without arguments, and makes them.

    Their attribute ``name`` has to be the entry point's: records and manifests name it.
    """

    def accept(found: Any, name: str) -> T:
        plugin = found()
        if not isinstance(plugin, contract):
            raise TypeError(f"{type(plugin).__name__} is no {contract.__name__}")
        own = getattr(plugin, "name", None)
        if own != name:
            raise TypeError(f"the class calls itself {own!r} and the entry point {name!r}")
        return plugin

    return accept
