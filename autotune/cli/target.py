"""`autotune target` and `autotune plugins`: what there is to tune for, and with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from autotune.cli.console import print_json, table
from autotune.cli.options import JsonOption, ThreadsOption

app = typer.Typer(help="Show what a target is, or which there are.", no_args_is_help=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="native, a name, or a JSON file.")] = "native",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a target; its JSON can be given to --target as a file."""
    from autotune.target import resolve

    target = resolve(name, threads)
    if as_json:
        print_json(asdict(target))
        return
    rows = [(key, _text(value)) for key, value in asdict(target).items()]
    table(f"Target {name}", ("field", "value"), [*rows, ("digest", target.digest)])


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the targets that are known by name."""
    from autotune.target import NAMES, cpu_tags

    names = [*NAMES, *cpu_tags()]
    if as_json:
        print_json(names)
        return
    for name in names:
        print(name)


def plugins(as_json: JsonOption = False) -> None:
    """List the plugins that are installed, ours and others, and what failed to load."""
    from autotune.plugins import plugins as found

    columns = ("kind", "name", "package", "version", "state", "error")
    rows = [
        (plugin.kind, plugin.name, plugin.package, plugin.version, plugin.state, plugin.error)
        for plugin in found()
    ]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table("Plugins", columns, rows)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
