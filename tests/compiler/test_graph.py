"""Graph passes keep what a model computes, and leave what fuses: against TVM without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.graph.tasks import extract_tasks
from autotune.target import named
from search_spaces.analysis import key_of, workload
from search_spaces.task import Target
from tests.compiler.graphs import ops, same
from tests.compiler.models import Maker, lowered, relax_model, tasks_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def target() -> Target:
    return named("x86-64", 2)


# -- constants


def test_constants_are_folded_as_tvm_computes_them() -> None:
    from tvm import relax

    from autotune.graph.constants import fold_constants

    cases: dict[str, Callable[[Maker], Any]] = {
        "reshape": lambda m: relax.op.reshape(m.weight(2, 6), (3, 4)),
        "permute_dims": lambda m: relax.op.permute_dims(m.weight(2, 3, 4), [2, 0, 1]),
        "permute_dims without axes": lambda m: relax.op.permute_dims(m.weight(2, 3)),
        "expand_dims": lambda m: relax.op.expand_dims(m.weight(4), [0, 2]),
        "squeeze": lambda m: relax.op.squeeze(m.weight(1, 4, 1)),
        "broadcast_to": lambda m: relax.op.broadcast_to(m.weight(3, 1), (2, 3, 4)),
        "astype int": lambda m: relax.op.astype(m.constant([-2.7, -0.5, 0.5, 2.7]), "int32"),
        "astype bool": lambda m: relax.op.astype(m.constant([0.0, -0.5, 2.0]), "bool"),
        "astype float": lambda m: relax.op.astype(m.constant([-3, 4], "int64"), "float32"),
        "subtract": lambda m: relax.op.subtract(m.weight(3, 4), m.weight(4)),
        "multiply": lambda m: relax.op.multiply(m.weight(3, 4), m.weight(3, 1)),
        "divide": lambda m: relax.op.divide(m.weight(5), m.constant([2, -3, 0.5, 1, 7])),
        "divide integers": lambda m: relax.op.divide(
            m.constant([-7, 7, -7, 7, 6], "int64"), m.constant([2, 2, -2, -2, 3], "int64")
        ),
        "sqrt": lambda m: relax.op.sqrt(m.weight(6, low=0.1)),
        "rsqrt": lambda m: relax.op.rsqrt(m.weight(6, low=0.1)),
        "negative": lambda m: relax.op.negative(m.constant([3, -4], "int32")),
        "isnan": lambda m: relax.op.isnan(m.constant([1.0, np.nan, np.inf])),
        "where": lambda m: relax.op.where(
            m.constant([True, False, True], "bool"), m.weight(2, 3), m.weight(1)
        ),
    }

    def model(make: Maker, x: Any) -> Any:
        return [x, *[make.emit(case(make)) for case in cases.values()]]

    module = relax_model([(2, 2)], model)
    folded = same(module, fold_constants, ["x", *cases])
    assert not ops(folded), "everything here is made of constants alone"


def test_folding_goes_through_chains_and_leaves_what_depends_on_the_input() -> None:
    from tvm import relax

    from autotune.graph.constants import fold_constants

    def model(make: Maker, x: Any) -> Any:
        scale = make.emit(relax.op.reshape(make.weight(6), (1, 6)))
        scale = make.emit(relax.op.sqrt(make.emit(relax.op.multiply(scale, scale))))
        return relax.op.add(make.emit(relax.op.multiply(x, scale)), scale)

    folded = same(relax_model([(2, 6)], model), fold_constants)
    assert ops(folded) == {"relax.multiply": 1, "relax.add": 1}


# -- matrix products


def test_reshapes_around_products_are_dropped_where_they_may() -> None:
    from tvm import relax

    from autotune.graph.matmul import drop_reshapes

    op = relax.op

    def around(make: Maker, x: Any, flat: tuple[int, ...], back: tuple[int, ...], bias: Any) -> Any:
        found = make.emit(op.reshape(x, flat))
        found = make.emit(op.matmul(found, make.weight(flat[-1], 5)))
        if bias is not None:
            found = make.emit(op.add(found, bias))
        return make.emit(op.reshape(found, back))

    def droppable(make: Maker, x: Any) -> Any:
        return [
            around(make, x, (6, 4), (2, 3, 5), None),
            around(make, x, (6, 4), (2, 3, 5), make.weight(5)),
        ]

    dropped = same(relax_model([(2, 3, 4)], droppable), drop_reshapes)
    assert "relax.reshape" not in ops(dropped)

    def moved(make: Maker, x: Any) -> Any:
        return [
            around(make, x, (6, 4), (3, 2, 5), None),
            around(make, x, (6, 4), (2, 3, 5, 1), make.weight(5)),
            around(make, x, (2, 12), (1, 2, 5), None),
        ]

    one_left = same(relax_model([(2, 3, 4)], moved), drop_reshapes)
    assert ops(one_left)["relax.reshape"] == 3

    def needed(make: Maker, x: Any) -> Any:
        return [
            around(make, x, (6, 4), (2, 3, 5), make.weight(6, 5)),
            around(make, x, (6, 4), (2, 3, 5), make.weight(6, 1)),
            around(make, x, (3, 8), (3, 5), make.weight(5)),
        ]

    module = relax_model([(2, 3, 4)], needed)
    assert ops(same(module, drop_reshapes))["relax.add"] == ops(module)["relax.add"]
    assert ops(drop_reshapes(module))["relax.reshape"] >= 5


# -- all passes


def test_batch_norm_disappears_into_the_convolution(target: Target) -> None:
    from tvm import relax

    def model(make: Maker, x: Any) -> Any:
        found = make.emit(relax.op.nn.conv2d(x, make.weight(6, 3, 3, 3), padding=1))
        statistics = (make.weight(6), make.weight(6), make.weight(6), make.weight(6, low=0.1))
        normed = make.emit(relax.op.nn.batch_norm(found, *statistics, axis=1, training=False))
        first = make.emit(relax.TupleGetItem(normed, 0))
        return make.emit(relax.op.nn.relu(first))

    module = same(relax_model([(1, 3, 8, 8)], model), lambda m: lowered(m, target))
    names = [task.workload.name for task in extract_tasks(module)[0]]
    assert sum("conv2d" in name for name in names) == 1
    assert not any("norm" in name or "subtract" in name for name in names), names


def residual_block(channels: int = 8, image: int = 10, seed: int = 0) -> Any:
    """Two convolutions, the second with bias, residual and relu."""
    from tvm import relax

    op = relax.op

    def model(make: Maker, x: Any) -> Any:
        first = make.emit(op.nn.conv2d(x, make.weight(channels, 3, 3, 3), padding=1))
        first = make.emit(op.nn.relu(first))
        second = make.emit(op.nn.conv2d(first, make.weight(channels, channels, 3, 3), padding=1))
        second = make.emit(op.add(second, make.weight(1, channels, 1, 1)))
        second = make.emit(op.add(second, first))
        return make.emit(op.nn.relu(second))

    return relax_model([(1, 3, image, image)], model, seed)


def test_convolution_bias_residual_and_relu_are_one_function(target: Target) -> None:
    module = same(residual_block(), lambda m: lowered(m, target))
    tasks, functions = extract_tasks(module)
    names = sorted(task.workload.name for task in tasks)
    assert names[:2] == ["conv2d_add_add_relu", "conv2d_relu"], names
    assert all(name.startswith("transpose") for name in names[2:]), names
    assert sum(task.calls for task in tasks) == 4
    assert set(functions.values()) == {task.workload.key for task in tasks}
    conv = next(task for task in tasks if task.workload.name == "conv2d_add_add_relu")
    pixels = 10 * 10 * 8
    assert 2 * pixels * 8 * 9 <= conv.flops <= 2 * pixels * 8 * 9 + 20 * pixels
    # data, weight, bias, residual, result
    assert conv.bytes == 4 * (pixels + 8 * 8 * 9 + 8 + pixels + pixels) or conv.bytes == 4 * (
        pixels + 8 * 8 * 9 + 8 + pixels
    ), "data and residual may be one argument"
    types = conv.workload.arguments
    assert {types[i].shape for i in conv.workload.constants} >= {(3, 3, 8, 8)}


def test_equal_layers_are_one_task_called_twice(target: Target) -> None:
    from tvm import relax

    def model(make: Maker, x: Any) -> Any:
        for _ in range(3):
            x = make.emit(relax.op.nn.relu(make.emit(relax.op.matmul(x, make.weight(6, 6)))))
        return x

    tasks = tasks_of(relax_model([(4, 6)], model), target)
    assert [(task.workload.name, task.calls) for task in tasks] == [("matmul_relu", 3)]


def test_a_whole_small_network(target: Target) -> None:
    """Everything at once: stem, pooling, upsampling, attention over pixels, wide integers."""
    from tvm import relax

    op = relax.op

    def model(make: Maker, x: Any) -> Any:
        emit = make.emit
        stem = emit(op.nn.conv2d(x, make.weight(8, 3, 3, 3), strides=2, padding=1))
        stem = emit(op.nn.silu(emit(op.add(stem, make.weight(1, 8, 1, 1)))))
        low = emit(op.nn.max_pool2d(stem, [2, 2], strides=[2, 2]))
        up = emit(op.nn.conv2d_transpose(low, make.weight(8, 8, 2, 2), strides=[2, 2]))
        both = emit(op.concat([stem, up], axis=1))
        tokens = emit(op.permute_dims(emit(op.reshape(both, (1, 16, 64))), [0, 2, 1]))
        key = emit(op.permute_dims(tokens, [0, 2, 1]))
        scores = emit(op.nn.softmax(emit(op.matmul(tokens, key)), axis=-1))
        mixed = emit(op.matmul(scores, tokens))
        flat = emit(op.matmul(emit(op.reshape(mixed, (64, 16))), make.weight(16, 8)))
        back = emit(op.reshape(emit(op.add(flat, make.weight(8))), (1, 64, 8)))
        gelu = emit(op.nn.gelu(back))
        index = emit(op.argmax(gelu, axis=-1))
        table = emit(op.take(make.weight(8, 4), index, axis=0))
        return [gelu, index, table]

    module = same(relax_model([(1, 3, 16, 16)], model), lambda m: lowered(m, target))
    calls = ops(module)
    assert set(calls) <= {"relax.call_tir", "relax.reshape"}, calls


# -- keys of workloads


def product(m: int, n: int, names: str, block: str = "product", bound: float = 0.0) -> Any:
    """max(a b, bound), with names of the caller's choice."""
    import tvm
    from tvm import te

    a = te.placeholder((m, 16), name=names[0])
    b = te.placeholder((16, n), name=names[1])
    r = te.reduce_axis((0, 16), name=names[2])
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name=block)
    limit = tvm.tirx.const(bound, "float32")
    d = te.compute((m, n), lambda i, j: te.max(c[i, j], limit), name=names[3])
    return te.create_prim_func([a, b, d])


def test_keys_ignore_names_and_nothing_else() -> None:
    key = workload(product(4, 8, "abrd"), "x").key
    assert workload(product(4, 8, "wxyz", block="p0_1"), "another").key == key
    others = {
        "rows": product(5, 8, "abrd"),
        "columns": product(4, 9, "abrd"),
        "swapped": product(8, 4, "abrd"),
        "a constant in the body": product(4, 8, "abrd", bound=0.5),
        "constant arguments": product(4, 8, "abrd").with_attr("layout_free_buffers", [1]),
    }
    keys = {name: workload(function, "x").key for name, function in others.items()}
    assert key not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_a_stored_function_has_the_key_of_its_workload(target: Target) -> None:
    import tvm

    for task in tasks_of(residual_block(), target):
        assert key_of(tvm.ir.load_json(task.workload.function)) == task.workload.key


def test_keys_do_not_depend_on_weights_or_position(target: Target) -> None:
    from tvm import relax

    def shifted(make: Maker, x: Any, y: Any) -> Any:
        # The same layers after others: every function gets another number in its name.
        other = make.emit(relax.op.nn.conv2d(y, make.weight(5, 4, 3, 3), padding=1))
        other = make.emit(relax.op.nn.relu(other))
        first = make.emit(relax.op.nn.conv2d(x, make.weight(8, 3, 3, 3), padding=1))
        return [make.emit(relax.op.nn.relu(first)), other]

    keys = {task.workload.key for task in tasks_of(residual_block(seed=0), target)}
    assert keys == {task.workload.key for task in tasks_of(residual_block(seed=1), target)}
    found = tasks_of(relax_model([(1, 3, 10, 10), (1, 4, 10, 10)], shifted), target)
    names = [task.workload.name for task in found if task.workload.key in keys]
    assert names.count("conv2d_relu") == 1
    larger = {task.workload.key for task in tasks_of(residual_block(image=11), target)}
    assert not keys & larger


KEYS = """
from autotune.target import named
from tests.compiler.models import tasks_of
from tests.compiler.test_graph import residual_block
tasks = tasks_of(residual_block(), named("x86-64", 2))
print([(task.workload.key, task.workload.name) for task in tasks])
"""


def test_keys_are_the_same_in_every_process(target: Target) -> None:
    tasks = tasks_of(residual_block(), target)
    # Strings are hashed with another seed there, which is random here unless the caller fixed it.
    done = subprocess.run(
        [sys.executable, "-c", KEYS],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str([(t.workload.key, t.workload.name) for t in tasks])
