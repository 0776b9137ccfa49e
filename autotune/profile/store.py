"""The roof of each target of this machine, measured once and kept in the user's cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from autotune.files import replacing, user_cache
from autotune.profile.roofline import Roof, measure
from search_spaces.task import Target

FORMAT = 2
"""Version of the files. One of another version is measured again."""


def roof_of(target: Target, again: bool = False) -> Roof:
    """What this machine can do at best on ``target``'s threads, from the cache if it is there.

    With ``again`` it is measured anew, and the better of both is kept at each point: what disturbs
    a machine only ever lowers a roof. Raises ``TargetError`` where it cannot be measured.
    """
    path = user_cache("roofs") / f"{target.digest}.json"
    known = read(path)
    if known is not None and not again:
        return known
    found = measure(target).better(known)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps({"format": FORMAT, **asdict(found)}, indent=1) + "\n").encode())
    return found


def read(path: Path) -> Roof | None:
    """The roof in ``path``; None where there is none, or none that can be used."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT:
            return None
        bandwidth = tuple((int(size), float(speed)) for size, speed in kept["bandwidth"])
        peaks = {str(dtype): float(peak) for dtype, peak in kept["peaks"].items()}
        roof = Roof(peaks, bandwidth, float(kept["start"]))
        if not min(roof.peak, *peaks.values()) > 0:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return roof if bandwidth and all(s > 0 for _, s in bandwidth) else None
