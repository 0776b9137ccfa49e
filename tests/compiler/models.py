"""Small Relax models, made of the operators under test, and the tasks that they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from search_spaces.task import Target, Task

Array = np.ndarray[Any, np.dtype[Any]]


class Maker:
    """What a model function gets: ``emit`` for each operator, ``weight`` for seeded constants."""

    def __init__(self, builder: Any, seed: int) -> None:
        self._builder = builder
        self._rng = np.random.default_rng(seed)

    def emit(self, expression: Any) -> Any:
        return self._builder.emit(expression)

    def constant(self, value: Any, dtype: str = "float32") -> Any:
        from tvm import relax

        return relax.const(np.asarray(value, dtype))

    def weight(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Any:
        return self.constant(self._rng.uniform(low, high, shape))


def relax_model(shapes: Sequence[tuple[int, ...]], model: Callable[..., Any], seed: int = 0) -> Any:
    """An IRModule whose "main" takes float32 tensors of ``shapes`` and returns ``model``'s result.

    ``model`` is called with a ``Maker`` and the input variables; a list of results is returned as
    a tuple.
    """
    from tvm import relax

    builder = relax.BlockBuilder()
    inputs = [relax.Var(f"x{i}", relax.TensorType(s, "float32")) for i, s in enumerate(shapes)]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = model(Maker(builder, seed), *inputs)
            result = relax.Tuple(result) if isinstance(result, list) else result
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    return builder.get()


def lowered(module: Any, target: Target) -> Any:
    """The graph passes on ``module``, as in ``autotune.graph.pipeline.optimise``."""
    import tvm

    from autotune.graph.pipeline import lower

    with tvm.target.Target(target.tvm()), tvm.transform.PassContext(opt_level=3):
        return lower(module, target)


def fused(module: Any, target: Target) -> Any:
    """A laid out module after the passes that fuse it."""
    import tvm

    from autotune.graph.pipeline import fuse

    with tvm.target.Target(target.tvm()), tvm.transform.PassContext(opt_level=3):
        return fuse(module, target)


def tasks_of(module: Any, target: Target) -> tuple[Task, ...]:
    """The tasks of a Relax module after the graph passes."""
    from autotune.graph.tasks import extract_tasks

    return extract_tasks(lowered(module, target))[0]


def run(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Compile a Relax module as TVM does by default (no passes of ours) and run it."""
    import tvm
    from tvm import relax

    executable = relax.build(module, tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(array) for array in inputs])
    outputs = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [output.numpy() for output in outputs]
