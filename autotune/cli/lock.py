"""`autotune lock`: the schedules of a model as a text file, to be kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json
from autotune.cli.options import (
    DATABASE,
    DatabaseOption,
    JsonOption,
    KeyOption,
    ModelArgument,
    QuietOption,
    ShapeOption,
    TargetOption,
    ThreadsOption,
)
from autotune.cli.progress import reporter


def lock(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(help="The lock file to write.")],
    shape: ShapeOption = None,
    target: TargetOption = "native",
    threads: ThreadsOption = None,
    key: KeyOption = "",
    database: DatabaseOption = DATABASE,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the best schedules of MODEL to a lock file, which `compile --lock` takes."""
    from autotune.compilation import lock as run

    with reporter(quiet) as told:
        made = run(
            model,
            output,
            parsing.shapes(shape or ()),
            target=target,
            database=database,
            threads=threads,
            key=key,
            status=told.status,
        )
    if as_json:
        print_json({"output": str(output), "tasks": len(made.tasks), "target": made.target})
    else:
        print(f"{output}: {len(made.tasks)} schedules for {made.target['model']}")
