"""What a search is going to do, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from autotune.counts import counted
from autotune.search.settings import SearchSettings
from search_spaces.task import Target, Task
from tuning_db.database import TuningDatabase

PACE = 4.0
"""Candidates a second, where the database knows no run of this target to judge by."""

LEAST = 20
"""Trials that a run must have had to be judged by."""


def plan(
    tasks: Sequence[Task], target: Target, database: TuningDatabase, settings: SearchSettings
) -> str:
    """One sentence: tasks, trials, sampler, what is known already, and roughly how long."""
    budget = settings.budget
    known = sum(len(database.measured_keys(t.workload.key, target.digest)) for t in tasks)
    pace, as_before = pace_of(database, target)
    how = "as the last run went" if as_before else "as most machines do"
    sampler = settings.sampler if isinstance(settings.sampler, str) else "a sampler of yours"
    calls = counted(sum(task.calls for task in tasks), "call")
    what = f"{counted(len(tasks), 'task')} ({calls})"
    parts = [f"searching schedules for {what} with {sampler}"]
    if known:
        parts.append(f"{known} candidates are known already")
    left = budget.left(known)
    if budget.trials is not None:
        longest = left / pace
        bound = f"{left:.0f} trials, about {_clock(longest)} at {pace:.1f} a second, {how}"
        if budget.seconds is not None and budget.seconds < longest:
            bound = f"{_clock(budget.seconds)} at most, enough for about "
            bound += f"{budget.seconds * pace:.0f} of {left:.0f} trials, {how}"
        parts.append(bound)
    elif budget.seconds is not None:
        trials = f"enough for about {budget.seconds * pace:.0f} trials at {pace:.1f} a second"
        parts.append(f"{_clock(budget.seconds)}, {trials}, {how}")
    if settings.until is not None:
        parts.append(f"until an inference takes {settings.until * 1e3:.3g} ms")
    return ", ".join(parts)


def pace_of(database: TuningDatabase, target: Target) -> tuple[float, bool]:
    """Candidates a second on ``target``, and whether an earlier run says so."""
    for run in reversed(database.runs()):
        if run.target != target.digest or run.trials_done < LEAST or run.finished is None:
            continue
        begun, ended = (datetime.fromisoformat(text) for text in (run.started, run.finished))
        seconds = (ended - begun).total_seconds()
        if seconds > 0:
            return run.trials_done / seconds, True
    return PACE, False


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
