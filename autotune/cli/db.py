"""`autotune db`: look into a tuning database, move records between files, and trim it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from autotune.cli.db_tables import (
    disturbed_ids,
    drift_shown,
    microseconds,
    print_json,
    print_table,
    record_dict,
    registered,
    shown,
    target_meant,
    workload_meant,
)
from autotune.cli.options import DATABASE, DatabaseOption
from autotune.errors import DatabaseError
from autotune.files import replacing

if TYPE_CHECKING:
    from tuning_db.database import TuningDatabase
    from tuning_db.exchange import Imported

app = typer.Typer(
    help="Look into a tuning database, exchange its records, trim it.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
WorkloadOption = Annotated[
    str | None, typer.Option("--workload", help="Name, key, or the start of a key.")
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="Digest of a target, or the start of one.")
]


@app.command()
def stats(db: DatabaseOption = DATABASE, as_json: AsJson = False) -> None:
    """Say what the database holds: models and how much of each is tuned, targets, outcomes."""
    with _reading(db) as database:
        found = database.stats()
    if as_json:
        print_json(asdict(found))
        return
    each = f", {found.bytes // found.records} a record" if found.records else ""
    print_table(
        "Database",
        ("file", "bytes", "records", "re-measured", "workloads", "runs", "unfinished"),
        [
            (found.path, f"{found.bytes}{each}", found.records, found.finals, found.workloads)
            + (found.runs, found.unfinished_runs)
        ],
    )
    print_table("Outcomes", ("outcome", "records"), list(found.outcomes.items()))
    print_table(
        "Targets",
        ("digest", "model", "workloads", "records"),
        [(row.digest[:12], row.model, row.workloads, row.records) for row in found.targets],
    )
    print_table(
        "Models",
        ("model", "target", "tasks", "tuned", "calls", "GFLOP", "ms in tuned tasks"),
        [
            (row.name, row.target[:12], row.tasks, row.tuned, row.calls)
            + (f"{row.flops / 1e9:.3g}", f"{row.seconds * 1e3:.4g}")
            for row in found.models
        ],
    )


@app.command("list")
def list_records(
    db: DatabaseOption = DATABASE,
    workload: WorkloadOption = None,
    target: TargetOption = None,
    outcome: Annotated[str | None, typer.Option(help="Only records of this outcome.")] = None,
    run: Annotated[str | None, typer.Option(help="Only records of this run.")] = None,
    disturbed: Annotated[
        bool, typer.Option("--disturbed", help="Only what `db verify` would measure again.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="How many of the latest to show.")] = 40,
    as_json: AsJson = False,
) -> None:
    """List the latest records, oldest of them first."""
    from tuning_db.rows import OUTCOMES

    if outcome is not None and outcome not in OUTCOMES:
        raise DatabaseError(f"there is no outcome {outcome!r}: use one of {', '.join(OUTCOMES)}")
    with _reading(db) as database:
        only = target_meant(database, target)
        found = list(
            database.records(
                workload_meant(database, workload),
                only,
                outcome=outcome,
                run=run,
                last=None if disturbed else last,
            )
        )
        if disturbed:
            spoilt = disturbed_ids(database, only)
            found = [record for record in found if record.id in spoilt][-last:]
        names = {row.key: row.name for row in database.workloads()}
    if as_json:
        print_json([record_dict(record, names, trace=False) for record in found])
        return
    print_table(
        "Records",
        ("id", "workload", "target", "outcome", "µs", "drift", "space", "parameters", "time"),
        [
            (record.id, names[record.workload], record.target[:12])
            + (record.outcome + (" (again)" if record.final else ""), microseconds(record))
            + (drift_shown(record), record.space, record.parameters, record.time[:19])
            for record in found
        ],
    )


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="Id of a record, or key of a workload or target.")],
    db: DatabaseOption = DATABASE,
    trace: Annotated[bool, typer.Option("--trace", help="Only the record's trace.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one record, workload or target in full."""
    with _reading(db) as database:
        names = {row.key: row.name for row in database.workloads()}
        record = database.record(int(what)) if what.isdecimal() and len(what) < 19 else None
        if record is not None:
            found = record_dict(record, names, trace=True)
        else:
            found = registered(database, what)
    if trace:
        if not found.get("trace"):
            raise DatabaseError(f"{what} has no trace: give the id of a record that was scheduled")
        typer.echo(shown(str(found["trace"])))
    elif as_json:
        print_json(found)
    else:
        rows = [
            (key, value if isinstance(value, str) else json.dumps(value))
            for key, value in found.items()
        ]
        print_table(what, ("field", "value"), rows)


@app.command()
def best(
    db: DatabaseOption = DATABASE,
    workload: WorkloadOption = None,
    target: TargetOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the best record of each task, the longest first."""
    with _reading(db) as database:
        only, where = workload_meant(database, workload), target_meant(database, target)
        targets = [row.digest for row in database.targets() if where in (None, row.digest)]
        found = [
            record
            for digest in targets
            for key, record in database.best_for_all(digest).items()
            if only in (None, key)
        ]
        names = {row.key: row.name for row in database.workloads()}
    found.sort(key=lambda record: (-(record.seconds or 0.0), record.workload, record.target))
    if as_json:
        print_json([record_dict(record, names, trace=False) for record in found])
        return
    print_table(
        "Best of each task",
        ("id", "workload", "target", "µs", "measured", "space", "parameters"),
        [
            (record.id, names[record.workload], record.target[:12], microseconds(record))
            + ("again" if record.final else "once", record.space, record.parameters)
            for record in found
        ],
    )


@app.command("export")
def export_records(
    db: DatabaseOption = DATABASE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: stdout.")
    ] = None,
    target: TargetOption = None,
) -> None:
    """Write the database as JSON lines (docs/database.md)."""
    from tuning_db.exchange import export_lines

    with _reading(db) as database:
        lines = export_lines(database, target_meant(database, target))
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        if output.exists() and os.path.samefile(output, db):
            raise DatabaseError(f"{output} is the database itself: name another file with --output")
        with replacing(output) as file:
            count = sum(bool(file.write(line.encode() + b"\n")) for line in lines)
    typer.echo(f"{count} lines written to {output}", err=True)


@app.command("import")
def import_records(
    source: Annotated[str, typer.Argument(help="File of exported lines, or - for stdin.")],
    db: DatabaseOption = DATABASE,
    as_json: AsJson = False,
) -> None:
    """Add exported lines to the database. Exit code 1 if any line was refused."""
    from autotune.database import database_errors, open_database
    from tuning_db.exchange import open_lines, store_lines

    with _input(source) as file, database_errors():
        lines = open_lines(file)
        with open_database(db) as database:
            done = store_lines(database, lines)
    _finish([(source, done)], as_json)


@app.command()
def merge(
    others: Annotated[list[Path], typer.Argument(help="Databases to add to this one.")],
    db: DatabaseOption = DATABASE,
    as_json: AsJson = False,
) -> None:
    """Add the records of other databases, with the runs they came from."""
    from autotune.database import open_database
    from tuning_db.exchange import merge as merge_into

    for other in others:  # each is looked at before the first one is merged
        with _reading(other):
            pass
    done: list[tuple[str, Imported]] = []
    with open_database(db) as database:
        for other in others:
            with _reading(other) as opened:
                done.append((str(other), merge_into(database, opened)))
    _finish(done, as_json)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="Candidates of each task to keep.")] = 10,
    db: DatabaseOption = DATABASE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep the best candidates of each task, drop all other records, shrink the file."""
    from autotune.database import open_database
    from tuning_db.pruning import prune as drop

    with open_database(db, create=False) as database:
        done = drop(database, keep, dry_run=dry_run)
    if as_json:
        print_json(asdict(done))
        return
    verb = "would be dropped" if dry_run else "dropped"
    typer.echo(
        f"{done.dropped} records {verb}, {done.kept} kept; "
        f"{done.bytes_before} bytes before, {done.bytes_after} after"
    )


@app.command()
def study(
    output: Annotated[Path, typer.Option("--output", "-o", help="The SQLite file to write.")],
    db: DatabaseOption = DATABASE,
    workload: WorkloadOption = None,
    target: TargetOption = None,
) -> None:
    """Write Optuna studies of the tasks, for optuna-dashboard and optuna.visualization."""
    from autotune.search.storage import write_studies

    with _reading(db) as database:
        only = workload_meant(database, workload), target_meant(database, target)
        count = write_studies(database, output, *only)
    typer.echo(f"{count} studies written to {output}: optuna-dashboard sqlite:///{output}")


# Files


@contextmanager
def _reading(path: Path) -> Iterator[TuningDatabase]:
    from autotune.database import open_database

    with open_database(path, create=False, read_only=True) as database:
        yield database


@contextmanager
def _input(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115
    except OSError as error:
        raise DatabaseError(f"{source} cannot be read: {error.strerror}") from error
    with file:
        yield file


def _finish(done: list[tuple[str, Imported]], as_json: bool) -> None:
    if as_json:
        print_json([{"source": source, **asdict(result)} for source, result in done])
    for source, result in done:
        if not as_json:
            typer.echo(
                f"{shown(source)}: {result.records} records and {result.others} other lines "
                f"added, {result.known} known before, {result.refused} refused"
            )
        for refusal in result.refusals:
            typer.echo(f"{shown(source)}, line {refusal.line} refused: {refusal.reason}", err=True)
        if result.refused > len(result.refusals):
            typer.echo(f"… and {result.refused - len(result.refusals)} more", err=True)
    if any(result.refused for _, result in done):
        raise typer.Exit(1)
