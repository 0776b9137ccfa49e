"""`autotune reproduce`: build an artifact again, and compare byte by byte."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.console import print_json
from autotune.cli.options import ArtifactArgument, JsonOption, QuietOption
from autotune.cli.progress import reporter


def reproduce(
    artifact: ArtifactArgument,
    model: Annotated[Path, typer.Option(help="The file that it was made from.")],
    database: Annotated[
        Path | None, typer.Option("--db", help="The database with the records that it names.")
    ] = None,
    lock: Annotated[
        Path | None, typer.Option("--lock", help="A lock file with them, in its place.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that the artifact DIR can be made again; exit code 1 where it differs."""
    from autotune.compilation import reproduce as run

    with reporter(quiet) as told:
        found = run(artifact, model, database=database, lock=lock, status=told.status)
    if as_json:
        print_json(asdict(found) | {"same": found.same})
    elif found.same:
        print(f"{artifact} was made again, the same bytes")
        for name, digest in found.files.items():
            print(f"  {name} {digest}")
    else:
        first, *others = found.differences
        print(f"{artifact} was not made again: {first}")
        if others:
            print(f"  and {len(others)} more differences, which --json lists")
    if not found.same:
        raise typer.Exit(1)
