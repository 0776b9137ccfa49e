"""`autotune bench`: an artifact next to other engines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import parsing
from autotune.cli.bench_tables import show, show_batches
from autotune.cli.console import print_json, say
from autotune.cli.options import JsonOption, ThreadsOption


def bench(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR",
            help="The artifact directory; several where a model was compiled for several shapes.",
        ),
    ],
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
    callers: Annotated[
        int, typer.Option(help="Also time as many callers at once, each with --threads.")
    ] = 0,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Also start each engine anew: load time, first call, memory, error by float64.",
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Also write a CSV file, one row an engine.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time DIR and other engines in turn, with the same inputs and threads."""
    from autotune.bench import bench as run
    from autotune.bench.rows import csv_of
    from autotune.files import check_place, replacing

    names = [name.strip() for name in against.split(",") if name.strip()]
    length = parsing.measuring(seconds)
    if csv is not None:
        check_place(csv)
    results = []
    for artifact in artifacts:
        say(f"timing {artifact} against {', '.join(names)}")
        results.append(
            run(artifact, names, model, threads, seconds=length, callers=callers, detailed=details)
        )
    if csv is not None:
        with replacing(csv) as file:
            file.write(csv_of(results).encode())
    if as_json:
        found = [asdict(result) for result in results]
        print_json(found if len(found) > 1 else found[0])
        return
    for result in results:
        show(result)
    if len({result.batch for result in results}) > 1:
        show_batches(results)
