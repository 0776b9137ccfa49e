"""Lengths of time as people write them."""

from __future__ import annotations

import re

from autotune.errors import InputError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def seconds_of(text: str) -> float:
    """Seconds of "90", "90s", "10m" or "1h30m". Raises ``InputError``."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise InputError(f"{text} is no duration: write it as 90s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three or four digits that mean something."""
    value = seconds * 1e3
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"
