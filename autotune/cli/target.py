"""`autotune target` and `autotune plugins`: what there is to tune for, and with."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import EntryPoint
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
    """List the search spaces that are installed, of tasks and of graphs, and what did not load."""
    from search_spaces.graph import registry as graphs
    from search_spaces.plugins import installed_plugins
    from search_spaces.registry import GROUP, all_spaces

    columns = ("name", "kind", "version", "priority", "package", "error")
    rows: list[tuple[str, str, int, int, str, str]] = []
    for kind, group, spaces in (
        ("task", GROUP, all_spaces()),
        ("graph", graphs.GROUP, graphs.graph_spaces()),
    ):
        packages = _packages(group)
        for space in spaces:
            package = packages.get(type(space).__module__, "")
            priority = getattr(space, "priority", 0)
            rows.append((space.name, kind, space.version, priority, package, ""))
        for point, reason in installed_plugins(group)[1]:
            rows.append((point.name, kind, 0, 0, _package(point), reason))
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table("Search spaces", columns, [list(map(str, row)) for row in rows])


def _packages(group: str) -> dict[str, str]:
    """The package that brings each module of an entry-point group."""
    from importlib.metadata import entry_points

    return {point.value.partition(":")[0]: _package(point) for point in entry_points(group=group)}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
