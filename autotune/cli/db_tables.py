"""What `autotune db` needs to find what is meant, and to print what is found."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from autotune.errors import DatabaseError

if TYPE_CHECKING:
    from tuning_db.database import TuningDatabase
    from tuning_db.records import Record


def workload_meant(database: TuningDatabase, given: str | None) -> str | None:
    rows = [(row.key, row.name) for row in database.workloads()] if given else []
    return one_meant("workload", given, rows)


def target_meant(database: TuningDatabase, given: str | None) -> str | None:
    rows = [(row.digest, row.model) for row in database.targets()] if given else []
    return one_meant("target", given, rows)


def one_meant(what: str, given: str | None, rows: Sequence[tuple[str, str]]) -> str | None:
    if given is None:
        return None
    found = [key for key, name in rows if key == given] or [
        key for key, name in rows if key.startswith(given) or name == given
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(f"{name} ({key[:12]})" for key, name in rows[:5]) or "none"
        raise DatabaseError(f"no {what} is called {given!r}: the database holds {shown(known)}")
    raise DatabaseError(
        f"{given!r} is the start of {len(found)} keys, or the name of as many, of a {what}: "
        f"use one of {', '.join(key[:16] for key in found[:5])}"
    )


def registered(database: TuningDatabase, what: str) -> dict[str, Any]:
    workloads = [(row.key, row.name) for row in database.workloads()]
    targets = [(row.digest, row.model) for row in database.targets()]
    key = one_meant("record, workload or target", what, [*workloads, *targets]) or ""
    if workload := database.workload(key):
        return {**asdict(workload), "description": parsed(workload.description)}
    target = database.target(key)
    assert target is not None
    return {**asdict(target), "description": parsed(target.description)}


def microseconds(record: Record) -> str:
    return "" if record.seconds is None else f"{record.seconds * 1e6:.2f}"


def drift_shown(record: Record) -> str:
    """How many times slower the machine was than undisturbed, as the run that measured saw it."""
    detail = parsed(record.detail)
    drift = detail.get("drift") if isinstance(detail, dict) else None
    return f"{drift:.2f}" if isinstance(drift, int | float) else ""


def disturbed_ids(database: TuningDatabase, target: str | None) -> set[int]:
    """Ids of the records that `db verify` would repeat, on ``target`` or on every one."""
    from tuning_db.drift import disturbed

    digests = [row.digest for row in database.targets()] if target is None else [target]
    return {row.id for digest in digests for row in disturbed(database, digest)}


def record_dict(record: Record, names: dict[str, str], *, trace: bool) -> dict[str, Any]:
    values = asdict(record) | {"workload_name": names[record.workload]}
    for name in ("parameters", "detail", "versions"):
        values[name] = parsed(values[name])
    if record.error == float("inf"):
        values["error"] = "Infinity"
    if not trace:
        del values["trace"]
    return values


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def shown(text: str) -> str:
    """Text of the database may come from anywhere: nothing in it may steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal; lines with tabs where the output goes elsewhere."""
    cells = [[shown(str(value)) for value in row] for row in rows]
    if not sys.stdout.isatty():
        typer.echo("\t".join(heads))
        for row in cells:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in cells:
        table.add_row(*(Text(value) for value in row))
    Console().print(table)
