"""`autotune db verify`: measure again, and say which records no longer hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from autotune.cli.console import Interrupted, print_json
from autotune.cli.options import (
    DATABASE,
    DatabaseOption,
    JsonOption,
    QuietOption,
    TargetOption,
    ThreadsOption,
)
from autotune.cli.progress import reporter
from tuning_db.drift import DISTURBED, SLOWER


def verify(
    records: Annotated[
        list[int] | None,
        typer.Argument(metavar="[RECORD]...", help="Ids; none: what a disturbed machine spoilt."),
    ] = None,
    database: DatabaseOption = DATABASE,
    best: Annotated[bool, typer.Option("--best", help="The best record of each task.")] = False,
    above: Annotated[
        float, typer.Option(help="How many times slower a disturbed machine is, at least.")
    ] = DISTURBED,
    slower: Annotated[
        float, typer.Option(help="How many times slower a record is that no longer holds.")
    ] = SLOWER,
    target: TargetOption = "native",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure records again on this machine. Exit code 1 if one of them no longer holds."""
    from autotune.api import verify as run

    with reporter(quiet) as told:
        found = run(
            database,
            target,
            above=above,
            threads=threads,
            records=records,
            best=best,
            slower=slower,
            progress=told.progress,
            status=told.status,
        )
    if as_json:
        print_json(asdict(found))
    else:
        what = "chosen" if records or best else "measured on a disturbed machine"
        print(
            f"{found.found} candidates were {what}: {found.repeated} measured again, "
            f"{found.still} on a disturbed machine, {found.changed} of {found.tasks} tasks have "
            "another winner"
        )
        for one in found.broken:
            now = one.outcome if one.seconds is None else f"{one.seconds * 1e6:.2f} µs"
            print(
                f"record {one.record} of {one.workload} no longer holds: "
                f"{one.was * 1e6:.2f} µs before, {now} now"
            )
        for reason in found.skipped:
            print(f"left out: {reason}")
    if found.interrupted:
        raise Interrupted(
            f"Interrupted: the {found.repeated} candidates measured again are in {database}, and "
            "the same command continues there."
        )
    if found.broken and (records or best):
        raise typer.Exit(1)
