"""What earlier searches left in the database: other tasks, and other targets of the same class.

Two uses are made of it. A cost model learns from it before the first measurement, and the best
schedules of similar tasks are among the first candidates of a new one.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotune.measure.wire import target_from
from autotune.search.recording import task_from
from autotune.search.space import JointSpace, candidate_of
from cost_models.base import CostModel, CostModelError, Observation
from cost_models.features import features_or_none, main_block, space_feature
from search_spaces.registry import all_spaces
from search_spaces.task import Candidate, Target, Task
from tuning_db.database import TuningDatabase
from tuning_db.history import (
    first_measurements,
    history,
    load_cost_model,
    save_cost_model,
    workloads_of,
)

SEEDS = 3
"""Candidates of similar tasks that a new task begins with, at most."""

FAR = 6.0
"""Similarity ends here: the extents differ by so many doublings in all."""

OTHER_TARGET = 1.0
"""What another target counts as, in doublings: another CPU model, other caches, other threads."""

GROWTH = 1.25
"""A stored model is made again once there are so many times the records that it learned from."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seed:
    """A candidate for a task, and where it comes from: JSON-able, kept in its record."""

    candidate: Candidate
    origin: Mapping[str, Any]


class Knowledge:
    """The tasks that a database knows on targets of one class, as far as they can be read here."""

    def __init__(self, database: TuningDatabase, target: Target) -> None:
        self.database = database
        self.target = target
        self._tasks: dict[str, Task | None] = {}

    @cached_property
    def targets(self) -> dict[str, Target]:
        """Targets like ours by digest, ours included where it is known."""
        read = ((row.digest, _target(row.description)) for row in self.database.targets())
        same = class_of(self.target)
        return {digest: t for digest, t in read if t is not None and class_of(t) == same}

    @cached_property
    def tasks(self) -> list[tuple[Task, Target]]:
        """Every task with records, on each of ``targets``."""
        found = []
        for digest, target in self.targets.items():
            for key in workloads_of(self.database, digest):
                task = self._task(key)
                if task is not None:
                    found.append((task, target))
        return found

    @cached_property
    def _of_kind(self) -> dict[str, list[tuple[Task, Target]]]:
        """``tasks`` by their kind: only those of one are compared."""
        found: dict[str, list[tuple[Task, Target]]] = {}
        for task, target in self.tasks:
            found.setdefault(main_kind(task), []).append((task, target))
        return found

    def observations(self) -> list[Observation]:
        """What became of candidates of all tasks.

        Left out are those of spaces that are not installed, or were changed since. Of spaces whose
        features would take a compiler for each task, only that it was theirs is told.
        """
        spaces = {space.name: space for space in all_spaces()}
        found = []
        for digest, target in self.targets.items():
            for record in history(self.database, digest):
                task, space = self._task(record.workload), spaces.get(record.space)
                if task is None or space is None or space.version != record.space_version:
                    continue
                candidate = candidate_of(record.space, record.space_version, record.parameters)
                if space.compiles:
                    features: dict[str, float] | None = space_feature(space)
                else:
                    features = features_or_none(task, target, candidate, space)
                if features is not None:
                    seconds = record.seconds
                    failed = seconds is None
                    found.append(Observation(task, target, candidate, features, seconds, failed))
        return found

    def _task(self, key: str) -> Task | None:
        if key not in self._tasks:
            self._tasks[key] = _task(self.database, key)
        return self._tasks[key]

    def seeds(self, joint: JointSpace) -> list[Seed]:
        """The best of similar tasks, as candidates of the task of ``joint``; nearest first."""
        task, target = joint.task, joint.target
        near = []
        for other, where in self._of_kind.get(main_kind(task), ()):
            if other.workload.key == task.workload.key and where == target:
                continue  # its own records: it has them already
            far = distance(task, other) + (0.0 if where == target else OTHER_TARGET)
            if far <= FAR:
                near.append((far, other.workload.key, where.digest, other))
        found: dict[str, Seed] = {}
        for far, key, digest, other in sorted(near, key=lambda entry: entry[:3]):
            best = self.database.best(key, digest)
            if best is None:
                continue
            candidate = joint.adapted(candidate_of(best.space, best.space_version, best.parameters))
            if candidate is None or candidate.key in found or not joint.valid(candidate):
                continue
            origin = {
                "workload": key,
                "name": other.workload.name,
                "target": digest,
                "candidate": best.candidate,
                "distance": round(far, 3),
            }
            found[candidate.key] = Seed(candidate, origin)
            if len(found) == SEEDS:
                break
        return list(found.values())


def grounded(model: CostModel, database: TuningDatabase, target: Target, known: Knowledge) -> bool:
    """Let ``model`` learn from ``known``, or read what it learned from the database.

    Returns whether it knows anything. What was learned is stored there for the next run, by the
    name of the model; one without a name is asked nothing.
    """
    if not model.name:
        return False
    name = f"{model.name}/{class_of(target)}"
    count = first_measurements(database)
    stored = load_cost_model(database, name)
    if stored is not None and stored[0] <= count <= GROWTH * stored[0]:
        try:
            model.read_ground(stored[1])
            return True
        except CostModelError as error:
            _log.info("the stored cost model %s is made again: %s", name, error)
    observations = known.observations()
    if not observations:
        return False
    model.ground(observations)
    save_cost_model(database, name, count, model.ground_bytes())
    return True


def class_of(target: Target) -> str:
    """What schedules depend on most: targets of one class teach each other."""
    return f"{target.kind}-{target.triple.split('-')[0]}-{target.vector_bits}"


def distance(one: Task, other: Task) -> float:
    """Doublings by which the extents of two tasks differ; infinite where they differ in kind."""
    if main_kind(one) != main_kind(other):
        return math.inf
    axes = zip(main_block(one).axes, main_block(other).axes, strict=True)
    return sum(abs(math.log2(a.extent) - math.log2(b.extent)) for a, b in axes)


def main_kind(task: Task) -> str:
    """The sort of the block with most iterations: what a schedule is for."""
    main = main_block(task)
    axes = "".join("r" if axis.reduced else "s" for axis in main.axes)
    reads = ";".join(str(read.dims) for read in main.reads)
    return f"{axes}:{sorted(main.ops)}:{reads}"


def _target(description: str) -> Target | None:
    """The target of a stored description; None where it is none that this version knows."""
    try:
        target = target_from(json.loads(description))
        return target if target.digest and class_of(target) else None
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _task(database: TuningDatabase, key: str) -> Task | None:
    row = database.workload(key)
    try:
        task = None if row is None else task_from(row)
    except ValueError:
        return None
    return task if task is not None and task.workload.blocks else None
