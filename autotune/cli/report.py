"""`autotune report`: an artifact as a page to look at and to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import say
from autotune.cli.options import ArtifactArgument, ThreadsOption
from autotune.errors import InputError


def report(
    artifact: ArtifactArgument,
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    model: Annotated[
        Path | None, typer.Option(help="What the artifact was compiled from: adds other engines.")
    ] = None,
    db: Annotated[
        Path | None, typer.Option("--db", help="The tuning database: adds how it was tuned.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Engines, by commas, as for bench.", show_default="onnxruntime"),
    ] = None,
    threads: ThreadsOption = None,
    seconds: Annotated[str, typer.Option("--time", help="About how long to measure.")] = "30s",
) -> None:
    """Write one HTML file about DIR: speed, kernels, tuning, choices, and how to get it again."""
    from autotune.report import report as run

    if against is not None and model is None:
        raise InputError("--against needs the original model: name its file with --model")
    names = [name.strip() for name in (against or "onnxruntime").split(",") if name.strip()]
    time = parsing.measuring(seconds)
    run(artifact, output, model, db, names, threads, time, say)
    print(output)
