"""Registers a searchable matmul space in the tests' process and, as a plugin, in the workers."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search_spaces.base import SearchSpace
from search_spaces.registry import register
from search_spaces.task import Parameters, ParameterValue, Target, Task


class Loops(SearchSpace):
    """Order, vector width and parallelism of a matmul; its default leaves the loops as they are."""

    name = "test.loops"

    def matches(self, task: Task, target: Target) -> bool:
        return task.workload.name == "matmul"

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        return {
            "inner": CategoricalDistribution((1, 8, 16, 32, 64)),
            "reduction": CategoricalDistribution(("inside", "outside")),
            "parallel": CategoricalDistribution((False, True)),
        }

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        return {"inner": 1, "reduction": "inside", "parallel": False}

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        block = schedule.get_child_blocks(schedule.get_sblock("root"))[-1]
        rows, columns, reduced = schedule.get_loops(block)
        outer, inner = schedule.split(columns, [None, parameters["inner"]])
        if parameters["reduction"] == "outside":
            schedule.reorder(rows, outer, reduced, inner)
            if parameters["inner"] != 1:
                schedule.vectorize(inner)
        else:
            schedule.reorder(rows, outer, inner, reduced)
        if parameters["parallel"]:
            schedule.parallel(rows)


register(Loops())
