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
    """List the search spaces that are installed, of tasks and of graphs, and what did not load."""
    from search_spaces.graph import registry as graphs
    from search_spaces.plugins import installed_plugins
    from search_spaces.registry import GROUP, all_spaces

    found = []
    for kind, group, spaces in (
        ("task", GROUP, all_spaces()),
        ("graph", graphs.GROUP, graphs.graph_spaces()),
    ):
        packages = _packages(group)
        found += [
            {
                "name": space.name,
                "kind": kind,
                "version": space.version,
                "priority": getattr(space, "priority", 0),
                "package": packages.get(type(space).__module__, ""),
                "error": "",
            }
            for space in spaces
        ]
        found += [
            {
                "name": point.name,
                "kind": kind,
                "version": 0,
                "priority": 0,
                "package": point.dist.name if point.dist else "",
                "error": reason,
            }
            for point, reason in installed_plugins(group)[1]
        ]
    if as_json:
        print_json(found)
        return
    columns = ("name", "kind", "version", "priority", "package", "error")
    table("Search spaces", columns, [[str(entry[key]) for key in columns] for entry in found])


def _packages(group: str) -> dict[str, str]:
    """The package that brings each module of an entry-point group."""
    from importlib.metadata import entry_points

    return {
        point.value.partition(":")[0]: point.dist.name if point.dist else ""
        for point in entry_points(group=group)
    }


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
