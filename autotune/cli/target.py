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
    """List the search spaces that are installed, and those that failed to load."""
    from importlib.metadata import entry_points

    from search_spaces.registry import GROUP, all_spaces, failed_plugins

    failed = {point.name: reason for point, reason in failed_plugins()}
    packages = {
        point.value.partition(":")[0]: point.dist.name if point.dist else ""
        for point in entry_points(group=GROUP)
    }
    found = [
        {
            "name": space.name,
            "version": space.version,
            "priority": space.priority,
            "package": packages.get(type(space).__module__, ""),
            "error": "",
        }
        for space in all_spaces()
    ]
    found += [
        {
            "name": point.name,
            "version": 0,
            "priority": 0,
            "package": point.dist.name if point.dist else "",
            "error": failed[point.name],
        }
        for point, _ in failed_plugins()
    ]
    if as_json:
        print_json(found)
        return
    columns = ("name", "version", "priority", "package", "error")
    table("Search spaces", columns, [[str(entry[key]) for key in columns] for entry in found])


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
