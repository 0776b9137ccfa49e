"""Everything that is not a tiled reduction: elementwise chains, softmax, norms, copies.

The blocks of one row are computed together, vectorised along the contiguous axis; reductions along
that axis are split into one partial result per vector lane (rfactor: Suriana, Adams and Kamil,
"Parallel associative reductions in Halide", 2017).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.rowwise_schedule import PARALLEL_ABOVE, RowwiseSchedule, column, foldable
from search_spaces.cpu.stages import Stages, extent, stages
from search_spaces.cpu.structure import tiled
from search_spaces.task import Parameters, ParameterValue, Target, Task, Workload

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LARGE_PRODUCT = 1_000_000
"""Multiplications above which a product is left to spaces that tile it."""


class RowwiseSpace(SearchSpace):
    """Rows, vector width, parallelism and partial reductions of a chain of stages."""

    name = "cpu.rowwise"
    version = 3
    priority = 20

    def matches(self, task: Task, target: Target) -> bool:
        nest = tiled(task.workload)
        if nest is not None and nest.broadcast:
            return False  # a product: without register tiles it is hopeless, and slow to measure
        return target.kind == "llvm" and rowwise(task.workload, target) is not None

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        found = _stages(task)
        options: dict[str, BaseDistribution] = {
            "parallel": CategoricalDistribution([True, False]),
            "vectors": CategoricalDistribution([1, 2, 4]),
        }
        if found.rows:
            options["rows"] = IntDistribution(0, found.rows)
        if any(foldable(task.workload.blocks[i], target) for i in found.kept):
            options["partial"] = CategoricalDistribution([True, False])
        return options

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        found = _stages(task)
        options = self.parameters(task, target)
        work = sum(extent(task.workload.blocks[i]) for i in found.kept)
        chosen: dict[str, ParameterValue] = {"parallel": work > PARALLEL_ABOVE, "vectors": 1}
        if "rows" in options:
            # Too few rows to share among threads: each stage is shared by itself.
            chosen["rows"] = found.rows if _count(task, found, found.rows) >= target.threads else 0
        if "partial" in options:
            chosen["partial"] = True
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        found = _stages(task)
        _check(task, found, target, parameters)
        last = task.workload.blocks[found.output]
        rows = int(parameters.get("rows", 0))
        count = _count(task, found, rows)
        return {
            "parallel": float(bool(parameters["parallel"])),
            "vectors": float(parameters["vectors"]),
            "rows": float(rows),
            "row_count": float(count),
            "partial": float(bool(parameters.get("partial", False))),
            "inner": float(extent(last)) / count,
            "stages": float(len(found.kept)),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        found = _stages(task)
        _check(task, found, target, parameters)
        RowwiseSchedule(schedule, task, found, target, parameters).run()


def rowwise(workload: Workload, target: Target) -> Stages | None:
    """The stages of ``workload``, if none of them is a large product that has no vectors here."""
    found = stages(workload)
    if found is None:
        return None
    for block in (workload.blocks[index] for index in found.kept):
        product = block.reduction and len(block.reads) > 1 and extent(block) > LARGE_PRODUCT
        if product and not foldable(block, target) and column(block) is None:
            return None
    return found


def _count(task: Task, found: Stages, rows: int) -> int:
    """How many rows there are, where ``rows`` leading dimensions are shared."""
    return prod(axis.extent for axis in task.workload.blocks[found.output].axes[:rows])


def _stages(task: Task) -> Stages:
    found = stages(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is not a chain of stages")
    return found


def _check(task: Task, found: Stages, target: Target, p: Parameters) -> None:
    rows = int(p.get("rows", 0))
    if rows > found.rows:
        raise InvalidParameters(f"only {found.rows} leading dimensions are shared")
