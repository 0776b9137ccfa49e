"""`autotune job`: many models for many targets, by a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli.console import Interrupted, print_json, say, table
from autotune.cli.options import JsonOption, QuietOption
from autotune.cli.progress import clock, reporter
from autotune.durations import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autotune.jobs.summary import Entry

app = typer.Typer(help="Tune many models for many targets, by a file.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The job file, in TOML.")]


@app.command()
def run(file: FileArgument, quiet: QuietOption = False, as_json: JsonOption = False) -> None:
    """Tune every model of FILE for every target; run again to continue where it ended.

    Exit code 1 if one of them could not be tuned, or not to be as fast as was asked for.
    """
    from autotune.jobs.run import run_job
    from autotune.jobs.summary import SUMMARY

    with reporter(quiet) as told:
        summary = run_job(file, progress=told.progress, status=told.status)
    if as_json:
        print_json(summary.model_dump())
    else:
        _print(f"Job {file}", summary.entries, None)
    if summary.interrupted:
        raise Interrupted(
            f"Interrupted: everything measured so far is in {summary.database}, and the same "
            "command continues there."
        )
    if not quiet:
        say(f"The summary is in {Path(summary.output) / SUMMARY}.")
    if not summary.succeeded:
        raise typer.Exit(1)


@app.command()
def status(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show how far the job of FILE is; from another terminal, while it runs."""
    from autotune.jobs.status import job_status

    found = job_status(file)
    if as_json:
        entries = [entry.model_dump() for entry in found.entries]
        print_json({"process": found.process, "entries": entries})
        return
    _print(f"Job {file}", found.entries, found.process)
    if found.process is None:
        say("No process runs it now.")


@app.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check FILE and what it names, and show what a run would do. Nothing is changed."""
    from autotune.jobs.status import job_plan

    steps = job_plan(file)
    if as_json:
        print_json(
            [
                {
                    "model": step.pair.model,
                    "target": asdict(step.pair.target) | {"name": step.pair.where},
                    "artifact": str(step.pair.artifact),
                    "done": step.done,
                    "seconds": step.seconds,
                }
                for step in steps
            ]
        )
        return
    rows: list[list[str]] = []
    for step in steps:
        left = "as long as it takes" if step.seconds is None else f"about {clock(step.seconds)}"
        trials = step.pair.options.trials
        rows.append(
            [
                step.pair.model,
                step.pair.where,
                "" if trials is None else str(trials),
                "nothing: it was done before" if step.done else left,
            ]
        )
    table(f"Job {file}", ("model", "target", "trials", "search"), rows)
    total = sum(step.seconds or 0.0 for step in steps)
    known = all(step.seconds is not None for step in steps)
    print(f"{clock(total)} of search{'' if known else ' at the least'}, besides compiling")


def _print(title: str, entries: Sequence[Entry], process: int | None) -> None:
    columns = ("model", "target", "trials", "default ms", "tuned ms", "times as fast", "artifact")
    rows = [[*_figures(entry), _state(entry, process)] for entry in entries]
    table(title, (*columns, "state"), rows, texts=("target", "artifact", "state"))


def _figures(entry: Entry) -> list[Any]:
    figures = ["", "", ""]
    if entry.seconds and entry.default_seconds:
        times = f"{entry.default_seconds / entry.seconds:.2f}"
        figures = [milliseconds(entry.default_seconds), milliseconds(entry.seconds), times]
    trials = str(entry.trials) if entry.trials else ""
    artifact = entry.artifact if entry.ended else ""
    return [entry.model, entry.target, trials, *figures, artifact]


def _state(entry: Entry, process: int | None) -> str:
    if entry.state == "at work":
        return f"at work, process {process}" if process else "at work"
    if entry.state == "failed":
        return f"failed: {entry.message}"
    few = entry.ended and entry.measured < entry.tasks
    return f"{entry.state}, {entry.measured} of {entry.tasks} tasks" if few else entry.state
