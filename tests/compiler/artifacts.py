"""A small fused model to build artifacts of, and a space for it; a script that builds one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from autotune.artifact.manifest import ChosenSchedule
from autotune.frontends.base import TensorSpec
from autotune.graph.model import FusedModel
from search_spaces.base import SearchSpace
from search_spaces.registry import register
from search_spaces.scheduling import schedule
from search_spaces.task import Candidate, Parameters, Target, Task

ROWS, DEPTH, COLUMNS = 16, 64, 32


class PackingSpace(SearchSpace):
    """Matmul with its weight packed at compile time; every other function in parallel."""

    name = "test.packing"
    priority = 1000

    def matches(self, task: Task, target: Target) -> bool:
        return True

    def parameters(self, task: Task, target: Target) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution

        return {"tile": CategoricalDistribution((4, 8, 16))}

    def default(self, task: Task, target: Target) -> dict[str, Any]:
        return {"tile": 8}

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        tile = int(parameters["tile"])
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            loops = schedule.get_loops(block)
            if "matmul" in schedule.get(block).name_hint and task.workload.constants:
                copy = schedule.cache_read(block, 1, "global")
                schedule.transform_layout(block, ("read", 1), lambda k, n: (n // tile, k, n % tile))
                schedule.annotate(copy, "meta_schedule.layout_rewrite_preproc", True)
                i, j, _ = loops
                outer, inner = schedule.split(j, [None, tile])
                schedule.reorder(outer, i, inner)
            schedule.parallel(loops[0])


class BrokenSpace(PackingSpace):
    """A default that schedules but does not compile: threads of a GPU on a CPU."""

    name = "test.broken"
    priority = 2000

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            schedule.bind(schedule.get_loops(block)[0], "threadIdx.x")


def fused(target: Target) -> FusedModel:
    """relu(x @ w1) @ w2: two matmuls of different shapes, weights bound."""
    import numpy as np
    import tvm
    from tvm import relax

    from autotune.graph.tasks import extract_tasks

    rng = np.random.default_rng(0)
    first, second = weights(rng)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((ROWS, DEPTH), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            hidden = builder.emit(relax.op.matmul(x, relax.const(first)))
            hidden = builder.emit(relax.op.nn.relu(hidden))
            out = builder.emit_output(relax.op.matmul(hidden, relax.const(second)))
        builder.emit_func_output(out)
    passes = relax.transform
    with tvm.target.Target(target.tvm()):
        module = tvm.transform.Sequential(
            [
                passes.LegalizeOps(),
                passes.AnnotateTIROpPattern(),
                passes.FuseOps(),
                passes.FuseTIR(),
                passes.DeadCodeElimination(),
                passes.AttachAttrLayoutFreeBuffers(),
            ]
        )(builder.get())
    tasks, functions = extract_tasks(module)
    return FusedModel(
        name="two_layers",
        digest="0" * 32,
        target=target,
        module=module,
        inputs=(TensorSpec("x", (ROWS, DEPTH), "float32"),),
        outputs=(TensorSpec("y", (ROWS, DEPTH), "float32"),),
        tasks=tasks,
        functions=functions,
    )


def weights(rng: Any) -> tuple[Any, Any]:
    """The weights of both layers, float32."""
    first = rng.standard_normal((DEPTH, COLUMNS)).astype("float32")
    return first, rng.standard_normal((COLUMNS, DEPTH)).astype("float32")


def expected(x: Any) -> Any:
    """What the model computes, by numpy."""
    import numpy as np

    first, second = weights(np.random.default_rng(0))
    return np.maximum(x @ first, 0) @ second


def tuned(model: FusedModel, tile: int) -> dict[str, ChosenSchedule]:
    """A schedule for the first task, as a database would have it."""
    task = model.tasks[0]
    parameters = {"tile": tile}
    candidate = Candidate("test.packing", 1, parameters)
    made = schedule(task, model.target, candidate)
    origin = (candidate.key, "some-run", "2026-01-01T00:00:00.000+00:00")
    return {
        task.workload.key: ChosenSchedule(
            made.trace, "test.packing", 1, parameters, *origin, seconds=1e-5
        )
    }


if __name__ == "__main__":
    from autotune.artifact.build import build
    from autotune.target import named

    register(PackingSpace())
    made_for = named("x86-64", 2)
    build(fused(made_for), tuned(fused(made_for), 16), Path(sys.argv[1]))
