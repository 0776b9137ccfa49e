"""`autotune db verify`: measure again what a disturbed machine spoilt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.console import Interrupted, print_json
from autotune.cli.options import JsonOption, TargetOption, ThreadsOption
from autotune.cli.progress import reporter
from tuning_db.drift import DISTURBED


def verify(
    database: Annotated[Path, typer.Option("--db", help="The tuning database.")] = Path(
        "tuning.db"
    ),
    above: Annotated[
        float, typer.Option(help="How many times slower the machine was, at least.")
    ] = DISTURBED,
    target: TargetOption = "native",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure again, on this machine, what was measured while it was disturbed."""
    from autotune.api import verify as run

    with reporter() as told:
        found = run(
            database,
            target,
            above=above,
            threads=threads,
            progress=told.progress,
            status=told.status,
        )
    if as_json:
        print_json(asdict(found))
    else:
        print(
            f"{found.found} candidates were measured on a disturbed machine: {found.repeated} "
            f"measured again, {found.still} disturbed again, {found.changed} of {found.tasks} "
            "tasks have another winner"
        )
        for reason in found.skipped:
            print(f"left out: {reason}")
    if found.interrupted:
        raise Interrupted(
            f"Interrupted: the {found.repeated} candidates measured again are in {database}, and "
            "the same command continues there."
        )
