"""The last resort: any function, each of its blocks on its own, loops in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.base import SearchSpace
from search_spaces.cpu.loops import fused
from search_spaces.cpu.rowwise import rowwise
from search_spaces.cpu.structure import tiled
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class PlainSpace(SearchSpace):
    """Matches what no template does; the outermost independent loop is shared among threads."""

    name = "cpu.plain"
    version = 1
    priority = -10

    def matches(self, task: Task, target: Target) -> bool:
        known = tiled(task.workload) is not None or rowwise(task.workload, target) is not None
        return target.kind == "llvm" and not known

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        return {"parallel": CategoricalDistribution([True, False])}

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        return {"parallel": task.bytes > 65536}

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        if not parameters["parallel"]:
            return
        for handle in schedule.get_child_blocks(schedule.get_sblock("root")):
            block = schedule.get(handle)
            loops = list(schedule.get_loops(handle))
            if len(loops) != len(block.iter_vars):
                continue
            shared = []
            for loop, variable in zip(loops, block.iter_vars, strict=True):
                if int(variable.iter_type) != 0:
                    break
                shared.append(loop)
            if shared:
                schedule.parallel(fused(schedule, shared))
