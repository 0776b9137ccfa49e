"""How the finals are held: who takes part, in which order, and what is recorded of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from autotune.measure.base import Measurement, Runner, TaskNotMeasurable
from autotune.measure.timing import ESTIMATOR
from autotune.search.finals import judge, pooled
from autotune.search.recording import record_of
from autotune.search.state import SearchState, TaskState
from autotune.turns import rounds_in_turn
from search_spaces.task import Candidate
from tuning_db.database import TuningDatabase

ATTEMPTS = 3
"""How often the finals of a task are held where leaders failed and others move up."""


def finalists(state: SearchState, task: TaskState) -> list[Candidate]:
    """The default and those that looked faster; empty where there is nothing to compare."""
    study, settings = task.study, state.settings
    if settings.rounds < 1 or study.best is None or not task.measurable:
        return []
    base = math.inf if study.default_seconds is None else study.default_seconds
    barred = {study.default.key, *task.out}
    leaders = [
        best.candidate
        for best in study.leaders(settings.finalists + 1 + len(task.out))
        if best.seconds < base and best.candidate.key not in barred
    ][: settings.finalists]
    incumbent = task.incumbent
    if incumbent is not None and incumbent.key not in {*barred, *(c.key for c in leaders)}:
        leaders.append(incumbent)
    if not leaders or (study.default_seconds is None and len(leaders) < 2):
        return []
    return leaders if study.default_seconds is None else [study.default, *leaders]


def seconds_needed(state: SearchState) -> float:
    """How long the finals of all tasks would take if they were held now."""
    return state.looks(sum(len(finalists(state, task)) for task in state.tasks))


def hold_finals(
    state: SearchState,
    runner: Runner,
    database: TuningDatabase,
    told: Callable[[TaskState], None],
) -> None:
    """Hold the finals of every task that has finalists, as far as time allows.

    ``told`` is called with the task after each of its rounds. What the runner and the database
    raise is passed on.
    """
    # What may gain most is compared first, in case time runs out.
    order = sorted(state.tasks, key=lambda task: -task.study.task.calls * task.gain)
    bound = state.settings.budget.seconds
    for task in order:
        for _ in range(ATTEMPTS):
            found = finalists(state, task)
            last = task.verdict
            if not found or (last and last.seconds.keys() >= {c.key for c in found}):
                break
            needed = state.looks(len(found))
            if bound is not None and state.elapsed + needed > bound:
                break
            try:
                _final(state, task, found, runner, database, told)
            except TaskNotMeasurable:
                task.measurable = False


def _final(
    state: SearchState,
    task: TaskState,
    found: Sequence[Candidate],
    runner: Runner,
    database: TuningDatabase,
    told: Callable[[TaskState], None],
) -> None:
    looks: dict[str, list[Measurement]] = {candidate.key: [] for candidate in found}
    disturbance: list[tuple[float, float]] = []
    for turn in rounds_in_turn(found, state.settings.rounds):
        slowed: list[tuple[float, float]] = []
        # One that failed a look is out already. One at a time: a runner may build ahead or
        # change the order, and what is compared must be measured in turn.
        for candidate in turn:
            if not any(look.outcome.kind != "measured" for look in looks[candidate.key]):
                runner.forget(task.study.task)
                looks[candidate.key].extend(runner.run(task.study.task, [candidate]))
                took = looks[candidate.key][-1].drift_seconds
                drift = state.drift.note(took)
                if took and drift:
                    slowed.append((took, drift))
        told(task)
        if slowed:
            disturbance.append(max(slowed))
    task.verdict = judge(task.study.default, looks)

    def add(look: Measurement, extra: dict[str, object]) -> None:
        database.add(
            record_of(task.study.task, state.target, look, run=state.run, final=True, extra=extra)
        )

    # A look that failed is recorded: it disqualifies. Of the others only the winner becomes a
    # final record, since the fastest final record is what is compiled, and within the noise
    # that would be a loser. What the losers took is in its detail.
    for seen in looks.values():
        for look in seen:
            if look.outcome.kind != "measured":
                task.out.add(look.candidate.key)
                add(look, {})
    if task.verdict.winner is not None:
        key, seconds = task.verdict.winner.key, task.verdict.seconds
        extra: dict[str, object] = {
            "finals": dict(seconds),
            "rounds": state.settings.rounds,
            "noise": task.verdict.noise,
            "estimator": f"median of {state.settings.rounds} rounds, in each the {ESTIMATOR}",
        }
        # A verdict is by medians over the rounds, each as disturbed as the worst look in it.
        if disturbance:
            took, drift = sorted(disturbance)[len(disturbance) // 2]
            extra |= {"drift": drift, "drift_seconds": took}
        add(pooled(looks[key], seconds[key]), extra)
