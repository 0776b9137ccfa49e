"""Packing apart from computing, on schedules of every kind of packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.measure.data import make_inputs
from autotune.measure.kernel import PackingError, build_kernel, split_packing
from search_spaces.task import Task
from tests.compiler.measuring import host, matmul, task_of


def schedule_of(task: Task) -> Any:
    import tvm
    from tvm import s_tir

    return s_tir.Schedule(tvm.ir.load_json(task.workload.function), debug_mask=0)


def pack(schedule: Any, block: str, operand: int, index_map: Any) -> None:
    found = schedule.get_sblock(block)
    copy = schedule.cache_read(found, operand, "global")
    schedule.transform_layout(found, ("read", operand), index_map)
    schedule.annotate(copy, "meta_schedule.layout_rewrite_preproc", True)


def run(schedule: Any, task: Task) -> tuple[Any, list[np.ndarray[Any, Any]], Any]:
    import tvm

    kernel = build_kernel(schedule.mod, task.workload, host())
    inputs = make_inputs(task.workload, "signed")
    output = tvm.runtime.empty(task.workload.arguments[-1].shape, "float32")
    kernel.function(*kernel.pack([*map(tvm.runtime.tensor, inputs), output]))
    return kernel, inputs, output.numpy()


def test_without_packing_the_function_is_compiled_as_it_is() -> None:
    task = matmul(8, 16, 24)
    kernel, (a, b), output = run(schedule_of(task), task)
    assert kernel.split.pack is None
    np.testing.assert_allclose(output, a @ b, rtol=1e-5, atol=1e-5)


def test_one_packed_weight() -> None:
    task = matmul(8, 16, 24)
    schedule = schedule_of(task)
    pack(schedule, "C", 1, lambda k, j: (j // 4, k, j % 4))
    kernel, (a, b), output = run(schedule, task)
    assert kernel.split.positions == (1,)
    assert kernel.split.types[0].shape == (4, 24, 4)
    np.testing.assert_allclose(output, a @ b, rtol=1e-5, atol=1e-5)


def test_two_packed_weights_in_the_reverse_order_of_the_arguments() -> None:
    from tvm import te

    a, b, c = (te.placeholder((8, 8), name=n) for n in "ABC")
    r = te.reduce_axis((0, 8), name="r")
    product = te.compute((8, 8), lambda i, j: te.sum(a[i, r] * c[r, j], axis=r), name="P")
    total = te.compute((8, 8), lambda i, j: product[i, j] + b[j, i], name="S")
    task = task_of("two", [a, b, c, total], constants=(1, 2))
    schedule = schedule_of(task)
    pack(schedule, "S", 1, lambda i, j: (j, i))
    pack(schedule, "P", 1, lambda k, j: (j // 2, k, j % 2))
    kernel, (x, y, z), output = run(schedule, task)
    assert sorted(kernel.split.positions) == [1, 2]
    np.testing.assert_allclose(output, x @ z + y.T, rtol=1e-5, atol=1e-5)


def test_packing_something_else_than_a_constant_is_refused() -> None:
    task = matmul(8, 16, 24)
    schedule = schedule_of(task)
    pack(schedule, "C", 0, lambda i, k: (k, i))
    with pytest.raises(PackingError, match="argument 0"):
        split_packing(schedule.mod, task.workload)
