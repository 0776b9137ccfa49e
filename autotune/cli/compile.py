"""`autotune compile`: build an artifact without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json
from autotune.cli.options import (
    JsonOption,
    KeyOption,
    ModelArgument,
    QuietOption,
    SizesOption,
    TargetOption,
    ThreadsOption,
)
from autotune.cli.progress import reporter
from autotune.precision.told import told
from autotune.several import CompiledSizes
from autotune.shares import shares_text
from autotune.steps import CompileResult


def compile(
    model: ModelArgument,
    output: Annotated[Path, typer.Option(help="Where to write the artifact.")],
    shape: SizesOption = None,
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
            parsing.sizes(shape or ()),
            target=target,
            database=database,
            output=output,
            threads=threads,
            key=key,
            lock=lock,
            status=told.status,
        )
    if as_json:
        print_json(described(result))
        return
    print(f"{result.output}: {result.summary}")
    sizes = [result] if isinstance(result, CompileResult) else list(result.sizes.values())
    for size in sizes:
        _print(size, verbose, f"{size.output.name}: " if len(sizes) > 1 else "")


def described(result: CompileResult | CompiledSizes) -> dict[str, Any]:
    """``result`` as plain values for JSON."""
    if not isinstance(result, CompileResult):
        sizes = {name: described(size) for name, size in result.sizes.items()}
        return {"output": str(result.output), "sizes": sizes}
    manifest = result.manifest
    rest = [task for task in manifest.tasks if task.source != "record"]
    return {
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
        "precision": told(manifest.graph.get("spaces")),
    }


def _print(result: CompileResult, verbose: bool, size: str) -> None:
    manifest = result.manifest
    counts = ", ".join(f"{name or 'no space'} {count}" for name, count in manifest.spaces.items())
    print(f"{size}tasks by search space: {counts}")
    if precision := told(manifest.graph.get("spaces")):
        print(f"{size}{precision}")
    if manifest.shares:
        print(f"{size}time by search space: {shares_text(manifest.shares)}")
    if verbose:
        for task in manifest.tasks:
            if task.source != "record":
                print(f"  {task.name}: {task.source}{f' ({task.note})' if task.note else ''}")
