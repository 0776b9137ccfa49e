"""What was chosen for the graph of a model, and how it is applied again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from autotune.errors import InputError
from search_spaces.graph.base import Choices
from search_spaces.graph.registry import graph_spaces
from search_spaces.task import Target


def choose(
    module: tvm.IRModule, target: Target, choices: Choices | None = None
) -> tuple[tvm.IRModule, Choices]:
    """``module`` with every graph space applied, and the choices in full.

    Without ``choices`` each space does what it does by default. With them nothing is done but what
    they say: a space that they do not name, or name in another version, is left out.
    """
    made: dict[str, Mapping[str, Any]] = {}
    for space in graph_spaces():
        told = None if choices is None else choices.get(space.name, {})
        if told is not None and told.get("version") != space.version:
            continue
        parameters = dict(space.default(module, target))
        chosen = {} if told is None else told.get("parameters", {})
        parameters.update((name, chosen[name]) for name in parameters if name in chosen)
        if parameters:
            module = space.apply(module, target, parameters)
            made[space.name] = {"version": space.version, "parameters": parameters}
    return module, made


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
