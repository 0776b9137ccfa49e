"""Numbers for the cost model: of the task, and of the decisions.

Both come from plain values, without a compiler. A schema fixes the columns, so that a stored
model reads later candidates the way it read those it was fitted on; what a candidate does not have
is NaN, which the trees treat as missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.registry import UnknownSpace, space_named
from search_spaces.task import Block, Candidate, Target, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXTENTS = 4
"""How many axes of each sort are told one by one: the innermost ones."""

OPERATIONS = ("mul", "add", "sub", "div", "max", "min", "exp", "erf", "sqrt", "tanh", "sigmoid")

MAX_COLUMNS = 512
"""Bound on the decision columns of one schema, whatever a space makes of its strings."""


def _log2(value: float) -> float:
    return math.log2(max(value, 1.0))


def _iterations(block: Block) -> float:
    return math.prod((float(axis.extent) for axis in block.axes), start=1.0)


def main_block(task: Task) -> Block:
    """The block with most iterations: what a template schedules, and the others follow."""
    return max(task.workload.blocks, key=_iterations)


@lru_cache(maxsize=4096)
def _of_task(task: Task, target: Target) -> tuple[tuple[str, float], ...]:
    work = task.workload
    found: dict[str, float] = {
        "log_flops": _log2(task.flops),
        "log_bytes": _log2(float(task.bytes)),
        "intensity": task.flops / max(1.0, float(task.bytes)),
        "blocks": float(len(work.blocks)),
        "constants": float(len(work.constants)),
        "threads": float(target.threads),
        "vector_bits": float(target.vector_bits),
    }
    if work.blocks:
        main = main_block(task)
        for sort, reduced in (("spatial", False), ("reduced", True)):
            extents = [axis.extent for axis in main.axes if axis.reduced is reduced]
            found[f"{sort}_axes"] = float(len(extents))
            found[f"{sort}_total"] = _log2(math.prod((float(e) for e in extents), start=1.0))
            for place, extent in enumerate(reversed(extents[-EXTENTS:])):
                found[f"{sort}_{place}"] = _log2(extent)
    counts: dict[str, int] = {}
    for block in work.blocks:
        for name, count in block.ops:
            counts[name] = counts.get(name, 0) + count
    for name in OPERATIONS:
        found[f"op_{name}"] = float(counts.pop(name, 0))
    found["op_other"] = float(sum(counts.values()))
    return tuple(found.items())


TASK_COLUMNS: tuple[str, ...] = (
    "log_flops", "log_bytes", "intensity", "blocks", "constants", "threads", "vector_bits",
    *(
        f"{sort}_{what}"
        for sort in ("spatial", "reduced")
        for what in ("axes", "total", *range(EXTENTS))
    ),
    *(f"op_{name}" for name in OPERATIONS), "op_other",
)  # fmt: skip
"""Columns that describe the task: fixed, so that models of different runs agree on them."""


def task_features(task: Task, target: Target) -> dict[str, float]:
    """Numbers of the task and the hardware, by the names in ``TASK_COLUMNS`` (some may lack)."""
    return dict(_of_task(task, target))


@lru_cache(maxsize=4096)
def kind_of(task: Task) -> str:
    """What sort of computation this is: equal for tasks that differ in their extents only."""
    return "|".join(
        ",".join("r" if axis.reduced else "s" for axis in block.axes)
        + ":"
        + ",".join(sorted(name for name, _ in block.ops))
        for block in task.workload.blocks
    )


def decision_features(
    task: Task, target: Target, candidate: Candidate, space: SearchSpace | None = None
) -> dict[str, float]:
    """Numbers of the decisions, by "space/name", and one-hot columns for parameters that are texts.

    ``space`` is looked up by name unless given. Raises ``InvalidParameters`` where the space
    refuses them or is installed in another version, ``UnknownSpace`` where it is not installed.
    """
    space = space_named(candidate.space) if space is None else space
    if space.version != candidate.version:
        raise InvalidParameters(f"{space.name} is version {space.version}, not {candidate.version}")
    prefix = f"{space.name}/"
    found = space_feature(space)
    for name, value in space.features(task, target, candidate.parameters).items():
        found[prefix + name] = float(value)
    for name, choice in candidate.parameters.items():
        if isinstance(choice, str):
            found[f"{prefix}{name}={choice}"] = 1.0
    return found


def space_feature(space: SearchSpace) -> dict[str, float]:
    """What all candidates of ``space`` have in common."""
    return {f"{space.name}/": 1.0}


def features_or_none(
    task: Task, target: Target, candidate: Candidate, space: SearchSpace | None = None
) -> dict[str, float] | None:
    """``decision_features``, or None for a candidate that cannot be made here."""
    try:
        return decision_features(task, target, candidate, space)
    except (InvalidParameters, UnknownSpace):
        return None


@dataclass(frozen=True)
class Schema:
    """The columns of a fitted model: those of the task, then those of the decisions."""

    decisions: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, float]]) -> Schema:
        """The columns that occur in ``rows``, in a fixed order; the rarest go if too many."""
        counts: dict[str, int] = {}
        for row in rows:
            for name in row:
                counts[name] = counts.get(name, 0) + 1
        common = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_COLUMNS]
        return cls(tuple(sorted(common)))

    @property
    def columns(self) -> tuple[str, ...]:
        """All column names, in the order of ``matrix``."""
        return (*TASK_COLUMNS, *self.decisions)

    def matrix(
        self, tasks: Sequence[tuple[Task, Target]], rows: Sequence[Mapping[str, float]]
    ) -> NDArray[np.float32]:
        """One line of floats for each row: shape (rows, columns), NaN where a number lacks."""
        import numpy as np

        places = {name: len(TASK_COLUMNS) + i for i, name in enumerate(self.decisions)}
        made = np.full((len(rows), len(self.columns)), np.nan, dtype=np.float32)
        heads: dict[tuple[str, Target], NDArray[np.float32]] = {}
        for line, ((task, target), row) in enumerate(zip(tasks, rows, strict=True)):
            key = (task.workload.key, target)
            head = heads.get(key)
            if head is None:
                found = task_features(task, target)
                head = np.array(
                    [found.get(name, math.nan) for name in TASK_COLUMNS], dtype=np.float32
                )
                heads[key] = head
            made[line, : len(TASK_COLUMNS)] = head
            for name, value in row.items():
                place = places.get(name)
                if place is not None:
                    made[line, place] = value
        # A space may divide by zero; XGBoost refuses infinities but knows missing values.
        made[np.isinf(made)] = np.nan
        return made
