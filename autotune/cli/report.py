"""`autotune report`: an artifact as a page to look at and to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import say
from autotune.cli.options import ArtifactArgument, ThreadsOption


def report(
    artifact: ArtifactArgument,
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    model: Annotated[
        Path | None, typer.Option(help="What the artifact was compiled from: adds other engines.")
    ] = None,
    db: Annotated[
        Path | None, typer.Option("--db", help="The tuning database: adds how it was tuned.")
    ] = None,
    against: Annotated[str, typer.Option(help="Engines, by commas, as for bench.")] = "onnxruntime",
    threads: ThreadsOption = None,
    seconds: Annotated[str, typer.Option("--time", help="About how long to measure.")] = "30s",
) -> None:
    """Write one HTML file about DIR: speed, kernels, tuning, choices, and how to get it again."""
    from autotune.report import report as run

    names = [name.strip() for name in against.split(",") if name.strip()]
    time = parsing.duration(seconds) or 30.0
    run(artifact, output, model, db, names, threads, time, say)
    print(output)
