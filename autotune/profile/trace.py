"""One inference as a trace in Chrome's format, which Perfetto (ui.perfetto.dev) opens."""

from __future__ import annotations

from typing import Any

from autotune.profile.observe import function_of
from autotune.profile.profile import Profile


def chrome_trace(profile: Profile) -> dict[str, Any]:
    """The inference of ``profile`` that took the median time; times in microseconds, as asked."""
    seen = profile.timeline
    at = seen.typical
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": profile.model}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "calls"}},
    ]
    owner = {name: entry for entry in profile.entries for name in entry.functions}
    operators = profile.operators or ((),) * len(seen.names)
    calls = zip(seen.names, operators, seen.begins[at], seen.seconds[at], strict=True)
    for name, sources, begin, seconds in calls:
        entry = owner.get(function_of(name))
        told: dict[str, Any] = {"function": name}
        if entry is not None:
            told |= {
                "operators": list(sources),
                "arguments": list(entry.arguments),
                "flops": entry.flops / entry.calls,
                "bytes": entry.bytes // entry.calls,
                "schedule": entry.schedule,
                "origin": entry.origin,
                "verdict": entry.verdict,
            }
        events.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": 1,
                "cat": "runtime" if entry is None else "kernel",
                "name": name if entry is None else entry.label,
                "ts": float(begin) * 1e6,
                "dur": float(seconds) * 1e6,
                "args": told,
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}
