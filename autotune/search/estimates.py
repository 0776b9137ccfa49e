"""What the whole model takes, from the first measurement on: tasks not measured yet are estimated.

For people who watch. No choice hangs on it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cost_models.latency import LatencyModel
from search_spaces.task import Target, Task

if TYPE_CHECKING:
    from autotune.search.state import SearchState
    from tuning_db.database import TuningDatabase


@dataclass(frozen=True)
class Whole:
    """Seconds of one inference: calls × seconds of the best and of the default, over all tasks.

    ``estimated`` of the tasks count by an estimate, which is the same in both sums.
    """

    best: float
    default: float
    estimated: int


def whole_of(state: SearchState) -> Whole:
    """The whole model as ``state`` knows it; 0 seconds where there is nothing to go by."""
    best = default = 0.0
    missing: list[Task] = []
    known: list[tuple[Task, float]] = []
    for each in state.tasks:
        task, seconds = each.study.task, each.seconds
        if seconds is None:
            missing.append(task)
            continue
        known.append((task, seconds[0]))
        best += task.calls * seconds[0]
        default += task.calls * seconds[1]
    told = state.estimates if all(t.workload.key in state.estimates for t in missing) else {}
    if missing and not told:
        told = by_rates(missing, known)
    rest = sum(task.calls * told.get(task.workload.key, 0.0) for task in missing)
    if missing and not told:
        return Whole(0.0, 0.0, len(missing))
    return Whole(best + rest, default + rest, len(missing))


def by_rates(tasks: Iterable[Task], known: Sequence[tuple[Task, float]]) -> dict[str, float]:
    """Seconds of a call by workload, as far from the best rates as most of ``known`` are.

    Nothing where nothing is known. ``known`` are tasks with the seconds of one call.
    """
    timed = [(task, seconds) for task, seconds in known if seconds > 0]
    if not timed:
        return {}
    compute = max(task.flops / seconds for task, seconds in timed)
    traffic = max(task.bytes / seconds for task, seconds in timed)

    def least(task: Task) -> float:
        of_flops = task.flops / compute if compute else 0.0
        return max(of_flops, task.bytes / traffic if traffic else 0.0, 1e-9)

    usual = statistics.median(seconds / least(task) for task, seconds in timed)
    return {task.workload.key: usual * least(task) for task in tasks}


def from_database(
    tasks: Sequence[Task], target: Target, database: TuningDatabase
) -> Mapping[str, float]:
    """Seconds of a call by workload, by what ``database`` knows of other tasks.

    Nothing where it knows too few.
    """
    model = latency_model(database, target) if tasks else None
    if model is None:
        return {}
    found = {task.workload.key: model.estimate(task, target) for task in tasks}
    return {key: estimate.seconds for key, estimate in found.items() if estimate is not None}


def latency_model(database: TuningDatabase, target: Target) -> LatencyModel:
    """A model of all tasks whose time ``database`` knows, on targets like ``target``."""
    from autotune.search.knowledge import Knowledge

    found = []
    for task, where in Knowledge(database, target).tasks:
        best = database.best(task.workload.key, where.digest)
        if best is not None and best.seconds:
            found.append((task, where, best.seconds))
    return LatencyModel(found)
