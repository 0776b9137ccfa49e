"""Which spaces there are: ours, and those that installed packages offer by entry point."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from search_spaces.base import SearchSpace
from search_spaces.plugins import Kind, answer, made, usable
from search_spaces.task import Candidate, Target, Task

KIND = Kind("search space", "autotune.search_spaces", made(SearchSpace))  # type: ignore[type-abstract]


class UnknownSpace(LookupError):
    """No space of that name and version is installed."""


_registered: dict[str, SearchSpace] = {}


def register(space: SearchSpace) -> None:
    """Offer ``space`` in this process, before those of installed packages with the same name.

    For a space that is not packaged: in a notebook, in a test. Worker processes that were started
    by a fork inherit it; those started afresh know installed packages only.
    """
    _registered[space.name] = space


def unregister(name: str) -> None:
    """Withdraw a space given to ``register``; nothing happens if there is none of that name."""
    _registered.pop(name, None)


def all_spaces() -> tuple[SearchSpace, ...]:
    """Every space that could be loaded, by entry-point name, then those given to ``register``."""
    installed = (space for space in usable(KIND) if space.name not in _registered)
    return (*installed, *_registered.values())


def spaces_for(task: Task, target: Target) -> list[SearchSpace]:
    """The spaces that match ``task``, most specific first (``priority``, then name)."""
    return list(matching(task, target))


def matching(task: Task, target: Target) -> Iterator[SearchSpace]:
    """The same one by one: who needs the first only does not wait for the slower ones to look."""
    for space in sorted(all_spaces(), key=lambda space: (-space.priority, space.name)):
        if answer(space, partial(space.matches, task, target), False):
            yield space


def schedulable(task: Task, target: Target) -> bool:
    """Whether any space matches."""
    return any(matching(task, target))


def space_named(name: str) -> SearchSpace:
    """The space called ``name``; raises ``UnknownSpace``."""
    for space in all_spaces():
        if space.name == name:
            return space
    raise UnknownSpace(f"no search space {name!r} is installed")


def default_candidate(task: Task, target: Target) -> Candidate:
    """The candidate that an untuned build uses: the default of the most specific space."""
    space = next(matching(task, target), None)
    if space is None:
        raise UnknownSpace(f"no search space matches {task.workload.name}")
    return Candidate(space.name, space.version, space.default(task, target))
