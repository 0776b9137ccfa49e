"""`autotune recommend`: which of the targets that were tuned for to run a model on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json, table
from autotune.cli.options import DATABASE, DatabaseOption, JsonOption, ShapeOption
from autotune.durations import milliseconds


def recommend(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Its name in the database, its digest, or its file."),
    ],
    shape: ShapeOption = None,
    db: DatabaseOption = DATABASE,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=0.17",
            help="Of an hour of a machine: its CPU, device key or target digest; once for each.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the targets in the database for MODEL: latency, throughput and cost."""
    from autotune.recommendation import recommend as run

    shapes = parsing.shapes(shape or ())
    found = run(model, db, parsing.prices(price or ()), shapes)
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    rows = [
        (
            entry.cpu + (f" ({entry.device})" if entry.device else ""),
            entry.target[:12],
            f"{entry.threads} of {entry.cores}",
            milliseconds(entry.seconds),
            f"{entry.per_core:.1f}",
            "" if entry.cost is None else f"{entry.cost:.4g}",
            f"{entry.tuned} of {entry.tasks}",
        )
        for entry in found
    ]
    columns = ("target", "digest", "threads", "ms", "inferences/s a core", "cost of a million",
               "tasks tuned")  # fmt: skip
    table(f"{model}, by the records of its tasks", columns, rows, texts=("digest",))
