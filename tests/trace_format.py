"""What the Trace Event Format asks of a trace, as far as a viewer such as Perfetto depends on it.

After "Trace Event Format" (Google, the document that Chrome's about:tracing and Perfetto's importer
of JSON traces name): an object with ``traceEvents``; complete events ("X") with ``ts`` and ``dur``
in microseconds, on one thread each inside of another or beside it; metadata ("M") of known names.
"""

from __future__ import annotations

import json
import math
from typing import Any

METADATA = {"process_name": str, "thread_name": str, "process_sort_index": int,
            "thread_sort_index": int, "process_labels": str}  # fmt: skip
KEYS = {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args", "tts", "tdur", "id", "cname", "sf"}
NANOSECOND = 1e-3
"""To which importers round, in microseconds."""


def faults(text: str) -> list[str]:
    """What is wrong with the trace ``text``; empty where nothing is."""

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        trace = json.loads(text, parse_constant=refused)
    except ValueError as error:
        return [str(error)]
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        return ["no object with a list traceEvents"]
    found = []
    if trace.get("displayTimeUnit", "ms") not in ("ms", "ns"):
        found.append("displayTimeUnit is ms or ns")
    threads: dict[tuple[int, int], list[tuple[float, float, str]]] = {}
    for index, event in enumerate(trace["traceEvents"]):
        wrong = _faults(event)
        found += [f"event {index}: {fault}" for fault in wrong]
        if not wrong and event["ph"] == "X":
            place = threads.setdefault((event["pid"], event["tid"]), [])
            place.append((event["ts"], event["dur"], event["name"]))
    for events in threads.values():
        found += _overlaps(events)
    return found


def _faults(event: Any) -> list[str]:
    if not isinstance(event, dict):
        return ["is no object"]
    found = [f"{key} is unknown" for key in sorted(event.keys() - KEYS)]
    if not isinstance(event.get("name"), str) or not event["name"]:
        found.append("has no name")
    if type(event.get("pid")) is not int:
        found.append("pid is no integer")
    if event.get("ph") == "M":
        kind = METADATA.get(event.get("name", ""))
        values = event.get("args", {})
        if kind is None or [type(value) for value in values.values()] != [kind]:
            found.append("is metadata that nobody knows")
    elif event.get("ph") == "X":
        if type(event.get("tid")) is not int or not isinstance(event.get("cat"), str):
            found.append("has no thread or category")
        for key in ("ts", "dur"):
            value = event.get(key)
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                found.append(f"{key} is no time")
        if not isinstance(event.get("args", {}), dict):
            found.append("args is no object")
    else:
        found.append("is of a phase that is not used here")
    return found


def _overlaps(events: list[tuple[float, float, str]]) -> list[str]:
    """Events of one thread of which one begins inside of another and ends after it."""
    found, open_until = [], []
    for begin, length, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_until and open_until[-1] <= begin + NANOSECOND:
            open_until.pop()
        if open_until and begin + length > open_until[-1] + NANOSECOND:
            found.append(f"{name} begins inside of an event and ends after it")
        open_until.append(begin + length)
    return found
