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
    as_json: JsonOption = False,
) -> None:
    """Time DIR and other engines in turn, with the same inputs and threads."""
    from autotune.bench import bench as run

    names = [name.strip() for name in against.split(",") if name.strip()]
    say(f"timing {artifact} against {', '.join(names)}")
    result = run(artifact, names, model, threads, seconds=parsing.duration(seconds) or 10.0)
    if as_json:
        print_json(asdict(result))
    else:
        show(result)


def show(result: BenchResult) -> None:
    """Print the table of a comparison."""
    rows = []
    for engine in result.engines:
        ratio, apart, taken = engine.ratio, engine.difference, engine.latency
        rows.append(
            (
                f"{engine.name} {engine.version}".strip(),
                milliseconds(taken.p50),
                milliseconds(taken.p95),
                milliseconds(taken.p99),
                f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
                f"{apart.absolute:.2g} ({apart.relative:.2g})" if apart else "",
            )
        )
    table(
        f"{result.model}, {result.threads} threads, {result.cpu}",
        ("engine", "p50 ms", "p95 ms", "p99 ms", "time / ours (95 %)", "largest difference"),
        rows,
    )
