"""What several benchmarks take on their command lines."""

from __future__ import annotations

from collections.abc import Collection

from autotune.errors import InputError


def several(text: str, known: Collection[str], what: str) -> list[str]:
    """The names in ``text``, by commas. Raises ``InputError`` for one that is not ``known``."""
    names = [name for name in text.split(",") if name]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise InputError(f"no {what} {', '.join(unknown)}: there are {', '.join(known)}")
    return names
