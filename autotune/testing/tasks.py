"""Small tasks to try spaces and runners on, and how to make one of TVM's tensor expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.task import Task


def task_of(name: str, tensors: Sequence[Any], constants: Sequence[int] = ()) -> Task:
    """The task that computes the last of ``tensors`` (``tvm.te``) from the others.

    ``constants`` are positions of those that are weights, known when a model is compiled.
    """
    import math

    from tvm import te

    from search_spaces.analysis import CONSTANTS, workload

    function = te.create_prim_func(list(tensors))
    if constants:
        function = function.with_attr(CONSTANTS, list(constants))
    work = workload(function, name)
    steps = sum(math.prod(axis.extent for axis in block.axes) for block in work.blocks)
    return Task(work, 1, float(2 * steps), sum(tensor.bytes for tensor in work.arguments))


def product(rows: int, columns: int, depth: int) -> Task:
    """A matrix product with constant weights: (rows, depth) by (depth, columns), float32."""
    from tvm import te

    a = te.placeholder((rows, depth), name="a")
    b = te.placeholder((depth, columns), name="b")
    k = te.reduce_axis((0, depth), name="k")
    c = te.compute((rows, columns), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    return task_of("product", [a, b, c], [1])


def rectified(*shape: int) -> Task:
    """max(x, 0) of one float32 tensor."""
    from tvm import te, tirx

    x = te.placeholder(shape, name="x")
    zero = tirx.const(0.0, "float32")
    y = te.compute(shape, lambda *i: te.max(x[i], zero), name="y")
    return task_of("rectified", [x, y])


def small_tasks() -> list[Task]:
    """What a space is tried on where nothing else is given: awkward extents among them."""
    return [product(7, 33, 20), product(1, 64, 48), product(8, 32, 32), rectified(5, 37)]
