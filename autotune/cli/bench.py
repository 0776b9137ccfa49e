"""`autotune bench`: an artifact next to other engines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json, say, table
from autotune.cli.options import ArtifactArgument, JsonOption, ThreadsOption
from autotune.durations import milliseconds

if TYPE_CHECKING:
    from autotune.bench import BenchResult
    from autotune.bench.difference import Difference
    from autotune.bench.statistics import Ratio


def bench(
    artifact: ArtifactArgument,
    against: Annotated[
        str,
        typer.Option(
            help="Engines, by commas: onnxruntime, openvino, torch, torch.compile, other artifact "
            "directories."
        ),
    ] = "onnxruntime",
    model: Annotated[
        Path | None,
        typer.Option(help="The file that the artifact was compiled from (.onnx, .pt2)."),
    ] = None,
    threads: ThreadsOption = None,
    seconds: Annotated[str, typer.Option("--time", help="About how long to measure.")] = "10s",
    callers: Annotated[
        int, typer.Option(help="Also time as many callers at once, each with --threads.")
    ] = 0,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Also start each engine anew: load time, first call, memory, error by float64.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Time DIR and other engines in turn, with the same inputs and threads."""
    from autotune.bench import bench as run

    names = [name.strip() for name in against.split(",") if name.strip()]
    say(f"timing {artifact} against {', '.join(names)}")
    result = run(
        artifact, names, model, threads, seconds=parsing.duration(seconds) or 10.0,
        callers=callers, detailed=details,
    )  # fmt: skip
    if as_json:
        print_json(asdict(result))
    else:
        show(result)


def show(result: BenchResult) -> None:
    """Print the tables of a comparison: latency, and what else was asked for."""
    rows = []
    for engine in result.engines:
        ratio, apart, taken = engine.ratio, engine.difference, engine.latency
        rows.append(
            (
                f"{engine.name} {engine.version}".strip(),
                milliseconds(taken.p50),
                milliseconds(taken.p95),
                milliseconds(taken.p99),
                _ratio(ratio) if ratio else "",
                _difference(apart),
            )
        )
    table(
        f"{result.model}, {result.threads} threads, {result.cpu}",
        ("engine", "p50 ms", "p95 ms", "p99 ms", "time / ours (95 %)", "largest difference"),
        rows,
    )
    _show_throughput(result)
    _show_details(result)


def _show_throughput(result: BenchResult) -> None:
    rows = []
    callers = 0
    for engine in result.engines:
        if (found := engine.throughput) is None:
            return
        callers = found.callers
        spread = f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
        rows.append((engine.name, spread, _ratio(found.ratio) if engine.ratio else ""))
    table(
        f"{callers} callers at once, each with {result.threads} threads",
        ("engine", "inferences / s (95 %)", "ours / it (95 %)"),
        rows,
    )


def _show_details(result: BenchResult) -> None:
    rows = []
    for engine in result.engines:
        if (found := engine.details) is None:
            return
        rows.append(
            (
                engine.name,
                f"{found.import_time:.2f}",
                f"{found.load_time:.3g}",
                milliseconds(found.first_call),
                f"{found.peak_memory / 1e6:.1f}",
                _difference(found.error),
            )
        )
    against = f"error against {result.reference}" if result.reference else "error"
    table(
        "started anew, in processes of its own",
        ("engine", "import s", "load s", "first call ms", "peak MB", against),
        rows,
    )


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _difference(apart: Difference | None) -> str:
    return f"{apart.absolute:.2g} ({apart.relative:.2g})" if apart else ""
