"""Looking at a job from outside: how far it is, and what a run would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.jobs.file import read_job, read_table
from autotune.jobs.job import Pair, merged, model_name, names_of_pairs, options_asked
from autotune.jobs.run import done_before, entries_of
from autotune.jobs.summary import Entry, read_summary, running


@dataclass(frozen=True)
class JobStatus:
    """``process`` runs the job now; None where none does."""

    process: int | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Step:
    """What a run would do for one pair: nothing where it is ``done``.

    ``seconds`` is roughly how long it would search; None where only the search will tell.
    """

    pair: Pair
    done: bool
    seconds: float | None


def job_status(path: str | Path) -> JobStatus:
    """How far the job of the file ``path`` is; from any process, at any time.

    Raises ``JobFileError`` where the file has faults.
    """
    table = read_table(path)
    output = Path(path).parent / table.output
    process = running(output)
    before = read_summary(output)
    known = {(entry.model, entry.target): entry for entry in before.entries} if before else {}
    entries = []
    for model, target in names_of_pairs(table):
        name = model_name(model)
        entry = known.get((name, target.name))
        wanted = options_asked(merged(table, model))
        if entry is None or any(entry.asked.get(key) != wanted[key] for key in wanted):
            entry = Entry(model=name, target=target.name)  # another thing is asked for now
        if entry.state == "at work" and process is None:
            entry.state = "interrupted"
        entries.append(entry)
    return JobStatus(process, tuple(entries))


def job_plan(path: str | Path) -> list[Step]:
    """What a run of the job file ``path`` would do; checks the file as a run does.

    Raises a ``UserError``.
    """
    from autotune.database import open_database
    from autotune.search.plan import PACE, pace_of

    job = read_job(path)
    steps = []
    for pair, entry in zip(job.pairs, entries_of(job), strict=True):
        pace = PACE
        if job.database.exists() and job.database.stat().st_size:
            with open_database(job.database, create=False) as opened:
                pace, _ = pace_of(opened, pair.target)
        bounds = []
        if pair.options.time is not None:
            bounds.append(max(0.0, pair.options.time - entry.spent))
        if pair.options.trials is not None:
            bounds.append(max(0, pair.options.trials - entry.trials) / pace)
        done = done_before(pair, entry)
        steps.append(Step(pair, done, 0.0 if done else min(bounds, default=None)))
    return steps
