"""`autotune compile`: build an artifact without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json
from autotune.cli.options import (
    JsonOption,
    KeyOption,
    ModelArgument,
    QuietOption,
    ShapeOption,
    TargetOption,
    ThreadsOption,
)
from autotune.cli.progress import reporter
from autotune.shares import shares_text


def compile(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(help="Where to write the artifact.")],
    shape: ShapeOption = None,
    target: TargetOption = "native",
    threads: ThreadsOption = None,
    key: KeyOption = "",
    database: Annotated[
        Path | None,
        typer.Option("--db", help="The tuning database; without one, defaults are compiled."),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option("--lock", help="A lock file with the schedules, in place of a database."),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Name the tasks that are not tuned.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compile MODEL with the best schedules that are known; nothing is measured."""
    from autotune.compilation import compile as run

    with reporter(quiet) as told:
        result = run(
            model,
            parsing.shapes(shape or ()),
            target=target,
            database=database,
            output=output,
            threads=threads,
            key=key,
            lock=lock,
            status=told.status,
        )
    manifest = result.manifest
    rest = [task for task in manifest.tasks if task.source != "record"]
    if as_json:
        print_json(
            {
                "output": str(result.output),
                "tasks": len(manifest.tasks),
                "tuned": manifest.tuned,
                "spaces": manifest.spaces,
                "shares": manifest.shares,
                "not_tuned": [
                    {"name": task.name, "source": task.source, "note": task.note} for task in rest
                ],
                "error": result.check.error if result.check else None,
                "notes": list(manifest.notes),
            }
        )
        return
    print(f"{result.output}: {result.summary}")
    counts = ", ".join(f"{name or 'no space'} {count}" for name, count in manifest.spaces.items())
    print(f"tasks by search space: {counts}")
    if manifest.shares:
        print(f"time by search space: {shares_text(manifest.shares)}")
    if verbose:
        for task in rest:
            print(f"  {task.name}: {task.source}{f' ({task.note})' if task.note else ''}")
