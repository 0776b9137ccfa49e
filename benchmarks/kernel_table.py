"""The figures of ``benchmarks.kernels``: what is said of timings, what is claimed, the table.

A row is one operator of a model, as it is stored: ``engines`` holds what ``summary`` says of each,
"ours" first, those of peers with their ``ratio``; ``bound`` is a ``benchmarks.roofline.Bound``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

OURS = "ours"
AIM = 0.9
"""The share of its bound that a heavy kernel is meant to reach."""

HEAVY = 0.01
"""The share of its model's time from which on a kernel is heavy."""

STEP = 1e-6
"""Seconds: peers' clocks tell no less, so nobody is slower by less."""

BUSY = 0.1
"""Cores: more than that kept busy by others is said beside the figures."""


def summary(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Seconds of single calls by round: the median of the rounds' medians, and the fastest call."""
    medians = [statistics.median(turn) for turn in rounds]
    return {
        "median": statistics.median(medians),
        "fastest": min(min(turn) for turn in rounds),
        "calls": sum(len(turn) for turn in rounds),
        "rounds": medians,
    }


def ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How many times as long a peer takes: the median over the rounds, and their range."""
    each = [t / o for o, t in zip(ours["rounds"], theirs["rounds"], strict=True)]
    return {"value": statistics.median(each), "low": min(each), "high": max(each)}


def measured(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a model that hold times of ours, those that take longest in the model first."""
    rows = [row for row in found.get("rows", ()) if row["status"] == "measured"]
    return sorted(rows, key=lambda row: -row["calls"] * row["engines"][OURS]["median"])


def share(row: dict[str, Any]) -> float:
    """Of its bound, by the fastest call: what disturbs the machine is no fault of the kernel's."""
    return float(row["bound"]["seconds"] / row["engines"][OURS]["fastest"])


def heavy(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that are bound by computing and take their part of the model's time."""
    rows = measured(found)
    whole = sum(row["calls"] * row["engines"][OURS]["median"] for row in rows)
    return [
        row
        for row in rows
        if row["bound"]["by"] == "compute"
        and row["calls"] * row["engines"][OURS]["median"] >= HEAVY * whole
    ]


def better_peer(row: dict[str, Any]) -> str | None:
    """The peer that is faster than the other one; None where no peer was timed."""
    peers = [name for name in row["engines"] if name != OURS]
    return min(peers, key=lambda name: row["engines"][name]["median"], default=None)


def behind(row: dict[str, Any]) -> bool:
    """Whether the better peer is faster in every round, and by more than its clock's step."""
    name = better_peer(row)
    if name is None:
        return False
    ours, peer = row["engines"][OURS], row["engines"][name]
    return peer["ratio"]["high"] < 1.0 and ours["median"] - peer["median"] > STEP


def claims(found: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at for a model, and whether this run shows it (only what it can tell)."""
    held = {"results_agree": all(row["status"] == "measured" for row in found["rows"])}
    if heavy(found):
        held[f"heavy_kernels_reach_{AIM}_of_bound"] = all(share(r) >= AIM for r in heavy(found))
    if any(better_peer(row) for row in measured(found)):
        held["no_kernel_slower_than_the_better_peer"] = not any(map(behind, measured(found)))
    return held


def remarks(content: dict[str, Any]) -> list[str]:
    """What the claims come to, by model, and what must be known to read the figures."""
    made = [_roof(content)] if "roof" in content else []
    for name, found in content["models"].items():
        if found["status"] != "measured":
            made.append(f"{name}: {found['status']}: {found['reason']}")
            continue
        if heavies := heavy(found):
            reached = sum(share(row) >= AIM for row in heavies)
            made.append(
                f"{name}: {reached} of {len(heavies)} heavy kernels (compute-bound, "
                f"{HEAVY:.0%} of the time or more) reach {AIM} of their bound."
            )
        rows = measured(found)
        if rows:
            worst = max(rows, key=lambda row: row["difference"])
            made.append(
                f"{name}: differs from ONNX Runtime by {worst['difference']:.1g} of the largest "
                f"value at most ({worst['operator']})."
            )
        slower = [f"{row['operator']} ({better_peer(row)})" for row in rows if behind(row)]
        if slower:
            made.append(f"{name}: slower than the better peer in every round: {'; '.join(slower)}.")
        for row in found["rows"]:
            if row["status"] != "measured":
                made.append(f"{name}: {row['operator']} {row['status']}: {row['reason']}")
        cores = found["busy_cores_of_others"]
        if cores is not None and cores > BUSY:
            made.append(f"{name}: other processes kept {cores:.1f} cores busy meanwhile.")
    return made


def _roof(content: dict[str, Any]) -> str:
    roof = content["roof"]
    size, widest = max(roof["bandwidth"], key=lambda entry: entry[1])
    last, memory = roof["bandwidth"][-1]
    peak = roof["peaks"]["float32"] if "peaks" in roof else roof["peak"]  # as it once was written
    return (
        f"Peak {peak / 1e9:.0f} GFLOP/s on {content['target']['threads']} threads, "
        f"bandwidth {memory / 1e9:.0f} GB/s at {last >> 20} MiB, at best {widest / 1e9:.0f} GB/s "
        f"at {size >> 10} KiB. FLOPs are those of the direct algorithm: a kernel by Winograd's may "
        "exceed its bound."
    )


def rows_of(found: dict[str, Any], peers: Sequence[str]) -> list[list[str]]:
    """The cells of a model's table."""
    return [
        [
            row["operator"],
            str(row["calls"]),
            f"{row['engines'][OURS]['median'] * 1e6:.1f}",
            f"{row['engines'][OURS]['fastest'] * 1e6:.1f}",
            _rate(row),
            f"{row['bound']['seconds'] * 1e6:.1f}",
            f"{share(row):.2f}",
            *(_peer(row["engines"].get(name)) for name in peers),
            ", ".join(row["sources"]),
        ]
        for row in measured(found)
    ]


def _rate(row: dict[str, Any]) -> str:
    seconds = row["engines"][OURS]["fastest"]
    if row["bound"]["by"] == "compute":
        return f"{row['flops'] / seconds / 1e9:.0f} GFLOP/s"
    return f"{row['bytes'] / seconds / 1e9:.0f} GB/s"


def _peer(engine: dict[str, Any] | None) -> str:
    if engine is None:
        return ""
    by = engine["ratio"]
    return f"{engine['median'] * 1e6:.1f}: {by['value']:.2f} ({by['low']:.2f} to {by['high']:.2f})"


def print_table(content: dict[str, Any]) -> None:
    """On stdout: a table for each model, then what is to be said of them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 180)
    peers = content["settings"]["peers"]
    for name, found in content["models"].items():
        if found["status"] != "measured":
            continue
        table = Table(title=name, title_justify="left")
        table.add_column("operator")
        columns = ["calls", "us", "fastest", "rate", "bound us", "bound / fastest"]
        for column in [*columns, *(f"{peer} us: times ours" for peer in peers)]:
            table.add_column(column, justify="right")
        table.add_column("schedule")
        for cells in rows_of(found, peers):
            table.add_row(*(cell.replace("[", r"\[") for cell in cells))
        console.print(table)
    for line in remarks(content):
        print(line)
