"""What was chosen for the graph of a model, and how it is applied again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autotune.errors import InputError
from search_spaces.graph.base import Choices, GraphSpace
from search_spaces.graph.registry import graph_spaces
from search_spaces.task import Parameters, Target

Decide = Callable[[GraphSpace, Any], Parameters | None]
"""What a graph space does to a module, as a value for each of its parameters; None: nothing."""

LayOut = Callable[[Any], Any]
"""What happens to a module before the late spaces (``GraphSpace.laid_out``) see it."""


def walk(
    module: Any,
    target: Target,
    decide: Decide,
    lay_out: LayOut | None = None,
    instead: GraphSpace | None = None,
) -> tuple[Any, Choices]:
    """``module``, laid out, with every graph space applied as ``decide`` says, and the choices.

    Each space sees what the ones before it made. ``instead`` takes the place of the space of its
    name.
    """
    made: dict[str, Mapping[str, Any]] = {}
    spaces = [instead if instead and s.name == instead.name else s for s in graph_spaces()]
    for late in (False, True):
        if late and lay_out is not None:
            module = lay_out(module)
        for space in (space for space in spaces if space.laid_out is late):
            parameters = decide(space, module)
            if parameters:
                module = space.apply(module, target, parameters)
                made[space.name] = {"version": space.version, "parameters": dict(parameters)}
    return module, made


def choose(
    module: Any,
    target: Target,
    choices: Choices | None = None,
    lay_out: LayOut | None = None,
    instead: GraphSpace | None = None,
) -> tuple[Any, Choices]:
    """``module`` with every graph space applied, and the choices in full.

    Without ``choices`` each space does what it does by default. With them nothing is done but what
    they say: a space that they do not name, or name in another version, is left out.
    """

    def decide(space: GraphSpace, module: Any) -> Parameters | None:
        told = None if choices is None else choices.get(space.name, {})
        if told is not None and told.get("version") != space.version:
            return None
        parameters = dict(space.default(module, target))
        if told:
            known = space.known(module, target)
            parameters.update((n, v) for n, v in told["parameters"].items() if n in known)
        return parameters

    module, made = walk(module, target, decide, lay_out, instead)
    # What else is known of a choice (what its precision loses) stays with it.
    return module, {name: {**(choices or {}).get(name, {}), **told} for name, told in made.items()}


def check_choices(choices: Choices, source: str) -> None:
    """Raise ``InputError`` where ``choices``, from ``source``, need spaces that are not here."""
    installed = {space.name: space.version for space in graph_spaces()}
    for name, told in choices.items():
        if installed.get(name) != told.get("version"):
            here = f"version {installed[name]} is" if name in installed else "it is not"
            raise InputError(
                f"{source} was made with version {told.get('version')} of the graph space {name}, "
                f"and {here} installed here: install what brings it"
            )
