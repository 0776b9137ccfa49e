"""Shapes that a model leaves open, fixed by those that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

Declared = tuple[int | None, ...] | None
"""What a model says of an input: None for an open extent, None for an unknown rank."""


def fixed_shapes(declared: Mapping[str, Declared], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shape of each input; ``shapes`` has to give those that ``declared`` leaves open.

    Raises ``InputError``, naming all that are missing at once.
    """
    for name in shapes:
        if name not in declared:
            raise InputError(
                f"the model has no input {name!r}: its inputs are {_listed(list(declared))}"
            )
    missing = []
    fixed: dict[str, tuple[int, ...]] = {}
    for name, shape in declared.items():
        if name in shapes:
            fixed[name] = _fitted(name, shape, shapes[name])
        elif shape is None or any(extent is None for extent in shape):
            missing.append(f"--input {name}={_pattern(shape)}")
        else:
            fixed[name] = tuple(extent or 0 for extent in shape)
    if missing:
        raise InputError(
            "the model leaves dimensions open: give numbers for the question marks of "
            + " ".join(missing)
        )
    return fixed


def _fitted(name: str, declared: Declared, given: tuple[int, ...]) -> tuple[int, ...]:
    if any(extent < 1 for extent in given):
        raise InputError(f"input {name}: every extent of {_text(given)} must be 1 or more")
    if declared is None:
        return given
    if len(given) != len(declared):
        raise InputError(
            f"input {name} has {len(declared)} dimensions ({_pattern(declared)}), "
            f"but {len(given)} were given ({_text(given)})"
        )
    for axis, (extent, wanted) in enumerate(zip(declared, given, strict=True)):
        if extent is not None and extent != wanted:
            raise InputError(
                f"input {name} fixes dimension {axis} at {extent}, but {wanted} was given: "
                f"use {_pattern(declared)}"
            )
    return given


def _text(shape: Sequence[int]) -> str:
    return ",".join(str(extent) for extent in shape)


def _pattern(declared: Sequence[int | None] | None) -> str:
    if declared is None:
        return "?"
    return ",".join("?" if extent is None else str(extent) for extent in declared)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none at all"
