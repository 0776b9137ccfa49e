"""The state of a search, as it is told while it works and at its end."""

from __future__ import annotations

from autotune.search.contest import seconds_needed
from autotune.search.estimates import whole_of
from autotune.search.progress import Progress, SearchSummary, Stage, Stopped, TaskResult
from autotune.search.space import candidate_of
from autotune.search.state import SearchState, TaskState
from tuning_db.database import TuningDatabase


def progress_of(state: SearchState, stage: Stage, task: TaskState) -> Progress:
    """What is told after a measurement of ``task``."""
    whole = whole_of(state)
    budget, done, elapsed = state.settings.budget, state.done, state.elapsed
    bounds = []
    if budget.trials is not None:
        bounds.append(budget.left(done) * state.pace + seconds_needed(state))
    if budget.seconds is not None:
        bounds.append(max(0.0, budget.seconds - elapsed))
    return Progress(
        stage=stage,
        task=task.study.task.workload.name,
        done=done,
        total=budget.trials,
        elapsed=elapsed,
        left=min(bounds) if bounds and stage == "search" else None,
        rate=state.new / elapsed if elapsed > 0 else 0.0,
        latency=whole.best,
        baseline=whole.default,
        tasks_measured=len(state.tasks) - whole.estimated,
        tasks=len(state.tasks),
        failures=state.failures,
    )


def summary_of(state: SearchState, database: TuningDatabase, stopped: Stopped) -> SearchSummary:
    """What is told at the end of a search that ``stopped``."""
    results = tuple(_result(state, task, database, stopped) for task in state.tasks)
    timed = [(r.task.calls, r.seconds, r.default_seconds) for r in results if r.seconds]
    return SearchSummary(
        run=state.run,
        stopped=stopped,
        message=_message(state, stopped, len(timed)),
        tasks=results,
        done=state.done,
        new=state.new,
        elapsed=state.elapsed,
        latency=sum(calls * seconds for calls, seconds, _ in timed if seconds),
        baseline=sum(calls * (default or seconds or 0.0) for calls, seconds, default in timed),
        failures=state.failures,
        drift=state.drift.drift,
    )


def _result(
    state: SearchState, task: TaskState, database: TuningDatabase, stopped: Stopped
) -> TaskResult:
    study = task.study
    # Asked of the database, so that what is told here is what is compiled later.
    record = database.best(study.task.workload.key, state.target.digest)
    winner = None
    if record is not None:
        winner = candidate_of(record.space, record.space_version, record.parameters)
    seconds = task.seconds
    reason = "interrupted" if stopped == "interrupted" else "budget"
    if state.set_aside(task):
        reason = "set aside"
    elif study.finished:
        reason = "exhausted" if study.exhausted else "converged"
    return TaskResult(
        task=study.task,
        winner=winner,
        seconds=record.seconds if record is not None else None,
        default_seconds=(
            seconds[1] if seconds is not None and study.default_seconds is not None else None
        ),
        trials=study.trials,
        failures=dict(study.failures),
        tuned=winner is not None and winner.key != study.default.key,
        final=record is not None and record.final,
        reason=reason,
    )


def _message(state: SearchState, stopped: Stopped, measured: int) -> str:
    kept = f"{state.done} measured candidates of {len(state.tasks)} tasks are in the database"
    if stopped == "interrupted":
        return f"Interrupted: {kept}, and the same command continues from there."
    if stopped == "all_failed":
        messages = (message for task in state.tasks for message in task.study.messages)
        why = next(messages, "no message was given")
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(state.failures.items()))
        return f"Stopped, since every candidate so far failed ({kinds}); the first: {why}"
    ends = {
        "budget": "The trials are used up",
        "time": "The time is used up",
        "converged": "Nothing more is to be gained",
        "reached": "The model is as fast as was asked for",
    }
    return f"{ends[stopped]}: {kept}, {measured} tasks have a right schedule."
