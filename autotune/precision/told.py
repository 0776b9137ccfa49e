"""The precision of a model in words, from the choices that a manifest holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.precisions import FULL, SPACE


def shortened(choices: Mapping[str, Any] | None) -> dict[str, str]:
    """The places that ``choices`` compute in another precision than float32, and in which."""
    found: Any = (choices or {}).get(SPACE, {}).get("parameters", {})
    return {name: str(kind) for name, kind in found.items() if kind != FULL}


def counted(kinds: Iterable[Any]) -> dict[str, int]:
    """How many of ``kinds``, values of places, are of which precision, float32 last."""
    found = Counter(str(kind).split()[0] for kind in kinds)
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: (kind == FULL, kind))}


def told(choices: Mapping[str, Any] | None) -> str:
    """What the precision of a model is, as a line; "" where all of it is float32."""
    mix = shortened(choices)
    if not mix or choices is None:
        return ""
    places: Any = choices[SPACE]["parameters"]
    kinds = ", ".join(f"{count} in {kind}" for kind, count in counted(places.values()).items())
    line = f"of {len(places)} sums of products {kinds}"
    found: Any = choices[SPACE].get("accuracy")
    if not found:
        return line
    if found["kind"] == "metric":
        return f"{line}; the metric loses {found['error']:.3g}, {found['budget']} allowed"
    which = "given" if found["given"] else "random"
    held = " held back" if found["held_back"] else ""
    return (
        f"{line}; {found['kind']} error {found['error']:.3g} on {found['samples']} {which} "
        f"samples{held}, budget {found['budget']}"
    )
