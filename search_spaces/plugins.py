"""Objects that installed packages offer by entry point."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@cache
def installed_plugins(group: str) -> tuple[tuple[Any, ...], tuple[tuple[EntryPoint, str], ...]]:
    """What the entry points of ``group`` make, called without arguments, in order of their names.

    Then the entry points that failed to load, with the reason: those are passed over.
    """
    made: dict[str, Any] = {}
    failures: list[tuple[EntryPoint, str]] = []
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found = point.load()()
        except Exception as error:  # a plugin may fail in any way; it is reported and skipped
            failures.append((point, f"{type(error).__name__}: {error}"))
        else:
            made[found.name] = found
    return tuple(made.values()), tuple(failures)
