"""What users type, as values: shapes, files, durations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autotune.durations import seconds_of
from autotune.errors import InputError


def shapes(given: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """``NAME=1,3,224,224`` entries by name. Raises ``InputError``."""
    found: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, value = _pair(text, "NAME=1,3,224,224")
        try:
            shape = tuple(int(part) for part in value.split(",")) if value else ()
        except ValueError:
            shape = (-1,)
        if any(extent < 0 for extent in shape):
            raise InputError(f"--input {text} is no shape: write it as {name}=1,3,224,224")
        if name in found:
            raise InputError(f"--input names {name} twice: give one shape for each input")
        found[name] = shape
    return found


def sizes(given: Iterable[str]) -> list[dict[str, tuple[int, ...]]]:
    """As ``shapes``, with several sizes by "/": ``NAME=1/4/8,3,224,224`` are three.

    Dimensions with several are taken together, first with first. Raises ``InputError``.
    """
    listed = list(given)
    counts = {
        part.count("/") + 1 for text in listed for part in text.rpartition("=")[2].split(",")
    } - {1}
    if len(counts) > 1:
        raise InputError(
            f"--input gives {' and '.join(map(str, sorted(counts)))} sizes: give as many for each "
            "dimension that varies, first goes with first"
        )
    every = []
    for number in range(max(counts, default=1)):
        one = []
        for text in listed:
            name, equals, value = text.rpartition("=")
            parts = (part.split("/") for part in value.split(","))
            one.append(name + equals + ",".join(p[number if len(p) > 1 else 0] for p in parts))
        every.append(shapes(one))
    return every


def files(given: Iterable[str]) -> dict[str, Path]:
    """``NAME=FILE`` entries by name. Raises ``InputError``."""
    found: dict[str, Path] = {}
    for text in given:
        name, value = _pair(text, "NAME=file.npy")
        if name in found:
            raise InputError(f"--input names {name} twice: give one file for each input")
        found[name] = Path(value)
    return found


def duration(text: str | None) -> float | None:
    """Seconds of "90", "90s", "10m", "1h30m". Raises ``InputError``."""
    try:
        return None if text is None else seconds_of(text)
    except InputError as error:
        raise InputError(f"--time {error}") from None


def measuring(text: str) -> float:
    """As ``duration``, of what is measured for so long: some time. Raises ``InputError``."""
    if not (seconds := duration(text)):
        raise InputError(f"--time {text} leaves no time to measure: give some, such as 10s")
    return seconds


def share(option: str, text: str) -> float:
    """0.05 of "5%" or "0.05"; not negative. Raises ``InputError``."""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InputError(f"--{option} {text} is no share: write it as 5% or 0.05")
    return number


def prices(given: Iterable[str]) -> dict[str, float]:
    """``TARGET=0.17`` entries by target. Raises ``InputError``."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not name or not 0 <= number < float("inf"):
            raise InputError(f"--price {text} is no price of an hour: write it as 'AMD EPYC=0.17'")
        found[name] = number
    return found


def _pair(text: str, example: str) -> tuple[str, str]:
    # At the last "=": names may contain one, shapes and most file names do not.
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InputError(f"--input {text} does not say what it is for: write {example}")
    return name, value
