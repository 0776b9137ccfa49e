"""`autotune check`: a regression gate, an artifact beside the one of its baseline."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json, say, table
from autotune.cli.options import ArtifactArgument, JsonOption
from autotune.counts import counted
from autotune.durations import milliseconds

if TYPE_CHECKING:
    from autotune.bench.check import CheckResult
    from autotune.bench.regression import Finding

NAMES = {
    "p50": "latency p50, ms",
    "p99": "latency p99, ms",
    "memory": "peak memory, MB",
    "size": "size on disk, MB",
    "error": "output error",
}


def check(
    artifact: ArtifactArgument,
    baseline: Annotated[Path, typer.Option(help="The baseline file.")],
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline, and a copy of DIR beside it.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Where the baseline's artifact is.", show_default="FILE with suffix .artifact"
        ),
    ] = None,
    latency: Annotated[str, typer.Option(help="By how much p50 may rise.")] = "3%",
    p99: Annotated[str, typer.Option(help="By how much p99 may rise.")] = "25%",
    memory: Annotated[str, typer.Option(help="By how much peak memory may rise.")] = "5%",
    size: Annotated[str, typer.Option(help="By how much the files may grow.")] = "5%",
    error: Annotated[
        str, typer.Option(help="How far outputs may differ, for the largest value in them.")
    ] = "1e-4",
    seconds: Annotated[str, typer.Option("--time", help="About how long to measure.")] = "30s",
    as_json: JsonOption = False,
) -> None:
    """Compare DIR with the artifact of a baseline; exit code 1 where it is worse."""
    from autotune.bench import check as gate
    from autotune.bench.regression import Thresholds
    from autotune.errors import InputError

    time = parsing.measuring(seconds)
    given = {"latency": latency, "p99": p99, "memory": memory, "size": size, "error": error}
    limits = Thresholds(**{name: parsing.share(name, text) for name, text in given.items()})
    if update:
        if against is not None:
            raise InputError("--against names what to compare with, and --update compares nothing")
        made = gate.update(artifact, baseline, time, say)
        if as_json:
            print_json(made.model_dump())
        else:
            print(f"{baseline}: p50 {milliseconds(made.figures.p50)} ms on {made.machine}")
        return
    result = gate.check(artifact, baseline, against, limits, time, say)
    if as_json:
        print_json(_plain(asdict(result) | {"worse": list(result.worse)}))
    else:
        show(result)
    if result.worse:
        raise typer.Exit(1)


def show(result: CheckResult) -> None:
    """Print the table and the verdict."""
    rows = [
        (
            NAMES[found.figure],
            _amount(found, found.baseline) if found.figure != "error" else "",
            _amount(found, found.now),
            f"{found.change:+.1%}" if found.figure != "error" else "",
            f"{found.limit:.1%}" if found.figure != "error" else f"{found.limit:.2g}",
            "" if found.probability is None else f"{found.probability:.2g}",
            "WORSE" if found.worse else "",
        )
        for found in result.findings
    ]
    table(
        f"{result.model}, {counted(result.threads, 'thread')}, {result.cpu}",
        ("figure", "baseline", "now", "change", "allowed", "chance", ""),
        rows,
    )
    for note in result.notes:
        say(f"Note: {note}.")
    if not 1 / 1.1 < result.machine < 1.1:
        say(
            f"The baseline's artifact takes {result.machine:.2f} times as long as when the "
            "baseline was written; both were timed now, so this has no part in the verdict."
        )
    worse = ", ".join(NAMES[figure].partition(", ")[0] for figure in result.worse)
    print(f"worse than the baseline: {worse}" if worse else "not worse than the baseline")


def _amount(found: Finding, value: float) -> str:
    if found.figure in ("p50", "p99"):
        return milliseconds(value)
    return f"{value:.2g}" if found.figure == "error" else f"{value / 1e6:.2f}"


def _plain(value: Any) -> Any:
    """``value`` for JSON, which has no word for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return "Infinity" if isinstance(value, float) and not math.isfinite(value) else value
