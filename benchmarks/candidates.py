"""Single operators to measure candidates of, and the candidates: drawn once, equal for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from search_spaces.task import Candidate, Target, Task

SPACES = ("cpu.tiled", "cpu.sketch")


@dataclass(frozen=True)
class Drawn:
    """A candidate and its schedule: an IRModule with PrimFunc "main"."""

    candidate: Candidate
    module: Any = field(repr=False)


def gemm(m: int, n: int, k: int) -> Any:
    """A Relax module: a matrix times a constant weight, float32."""
    from tvm import relax

    return _model((m, k), (k, n), lambda x, w: relax.op.matmul(x, w))


def conv3x3(size: int, channels: int) -> Any:
    """A Relax module: a 3x3 convolution of stride 1 that keeps its size, NHWC, constant weight."""
    from tvm import relax

    return _model(
        (1, size, size, channels),
        (3, 3, channels, channels),
        lambda x, w: relax.op.nn.conv2d(
            x, w, padding=(1, 1, 1, 1), data_layout="NHWC", kernel_layout="HWIO"
        ),
    )


def depthwise3x3(size: int, channels: int) -> Any:
    """A Relax module: a 3x3 depthwise convolution that keeps its size, NHWC, constant weight."""
    from tvm import relax

    return _model(
        (1, size, size, channels),
        (3, 3, 1, channels),
        lambda x, w: relax.op.nn.conv2d(
            x,
            w,
            padding=(1, 1, 1, 1),
            groups=channels,
            data_layout="NHWC",
            kernel_layout="HWIO",
        ),
    )


def softmax(*shape: int) -> Any:
    """A Relax module: softmax over the last axis."""
    from tvm import relax

    return _model(shape, (1,), lambda x, w: relax.op.nn.softmax(x, axis=-1))


def _model(
    data: tuple[int, ...], weight: tuple[int, ...], operator: Callable[[Any, Any], Any]
) -> Any:
    import numpy as np
    from tvm import relax

    values = np.random.default_rng(0).uniform(-1, 1, weight).astype("float32")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(data, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(operator(x, relax.const(values)))
        builder.emit_func_output(result)
    return builder.get()


def task_of(model: Any, target: Target) -> Task:
    """The one task that the graph passes make of ``model``."""
    import tvm

    from autotune.graph.pipeline import lower
    from autotune.graph.tasks import extract_tasks

    with tvm.target.Target(target.tvm()), tvm.transform.PassContext(opt_level=3):
        tasks, _ = extract_tasks(lower(model, target))
    (task,) = tasks
    return task


def drawn(task: Task, target: Target, count: int, seed: int) -> list[Drawn]:
    """Different candidates at random, of each of ``SPACES`` in turn, that can be scheduled.

    Whether they can be built, and are right, is for those who measure them to find out.
    """
    import numpy as np

    from autotune.search.space import JointSpace
    from search_spaces.scheduling import schedule

    joint = JointSpace(task, target)
    rng = np.random.default_rng(seed)
    found: dict[str, Drawn] = {}
    names = cycle(name for name in SPACES if name in joint.spaces)
    name = next(names)
    for _ in range(1000 * count):
        if len(found) == count:
            break
        candidate = joint.candidate(joint.draw(rng, name))
        if candidate.key in found or not joint.valid(candidate):
            continue
        try:
            module = schedule(task, target, candidate).module
        except Exception:  # a space or TVM may raise anything: no schedule, nothing to measure
            continue
        found[candidate.key] = Drawn(candidate, module)
        name = next(names)
    return list(found.values())
