"""Graph passes keep what a model computes, and leave what fuses: against TVM without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.graph.tasks import extract_tasks
from autotune.target import named
from search_spaces.analysis import key_of, workload
from search_spaces.task import Target
from tests.compiler.models import Array, Maker, lowered, relax_model, run, tasks_of

ROOT = Path(__file__).resolve().parents[2]
Pass = Callable[[Any], Any]


@pytest.fixture(scope="module")
def target() -> Target:
    return named("x86-64", 2)


def ops(module: Any) -> Counter[str]:
    """How often "main" calls each Relax operator."""
    blocks = module["main"].body.blocks
    values = [binding.value for block in blocks for binding in block.bindings]
    return Counter(v.op.name for v in values if hasattr(v, "op") and hasattr(v.op, "name"))


def inputs_of(module: Any, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    shapes = [tuple(int(e) for e in p.ty.shape.values) for p in module["main"].params]
    return [rng.uniform(-1, 1, shape).astype("float32") for shape in shapes]


def same(module: Any, change: Pass, names: Sequence[str] = ()) -> Any:
    """Assert that ``change`` keeps every output of ``module``; returns the changed module."""
    inputs = inputs_of(module)
    changed = change(module)
    before, after = run(module, inputs), run(changed, inputs)
    assert len(before) == len(after)
    wrong = []
    for index, (expected, found) in enumerate(zip(before, after, strict=True)):
        name = names[index] if names else str(index)
        if expected.shape != found.shape or expected.dtype != found.dtype:
            wrong.append(f"{name}: {found.dtype}{found.shape} for {expected.dtype}{expected.shape}")
        elif not np.allclose(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True):
            error = np.abs(found.astype(float) - expected.astype(float)).max()
            wrong.append(f"{name}: off by {error:.3g}")
    assert not wrong, "; ".join(wrong)
    return changed


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


# -- layout


def branches(cases: dict[str, Callable[[Maker, Any], Any]], image: tuple[int, int] = (6, 9)) -> Any:
    """A convolution (batch 2, 5 channels out of 3), then every case as an output of its own."""
    from tvm import relax

    def model(make: Maker, x: Any) -> Any:
        found = make.emit(relax.op.nn.conv2d(x, make.weight(5, 3, 3, 3), padding=1))
        return [make.emit(case(make, found)) for case in cases.values()]

    return relax_model([(2, 3, *image)], model)


def staying_cases() -> dict[str, Callable[[Maker, Any], Any]]:
    """Operators that have a channels-last form."""
    from tvm import relax

    op = relax.op
    return {
        "relu": lambda m, t: op.nn.relu(t),
        "clip": lambda m, t: op.clip(t, -0.2, 0.5),
        "leakyrelu": lambda m, t: op.nn.leakyrelu(t, 0.1),
        "softplus": lambda m, t: op.nn.softplus(t),
        "astype": lambda m, t: op.astype(t, "int32"),
        "add (C,1,1)": lambda m, t: op.add(t, m.weight(5, 1, 1)),
        "(C,1,1) - x": lambda m, t: op.subtract(m.weight(5, 1, 1), t),
        "multiply (1,C,1,1)": lambda m, t: op.multiply(t, m.weight(1, 5, 1, 1)),
        "multiply ()": lambda m, t: op.multiply(t, m.constant(2.5)),
        "multiply (1,)": lambda m, t: op.multiply(t, m.weight(1)),
        "add (W,)": lambda m, t: op.add(t, m.weight(9)),
        "add (H,W)": lambda m, t: op.add(t, m.weight(6, 9)),
        "add (N,C,H,W)": lambda m, t: op.add(t, m.weight(2, 5, 6, 9)),
        "add itself": lambda m, t: op.add(t, t),
        "where": lambda m, t: op.where(
            m.emit(op.greater(t, m.constant(0.0))), t, m.weight(5, 1, 1)
        ),
        "concat channels": lambda m, t: op.concat([t, m.emit(op.nn.relu(t)), t], axis=1),
        "concat rows": lambda m, t: op.concat([t, t], axis=2),
        "concat columns, from behind": lambda m, t: op.concat([t, t], axis=-1),
        "concat batch": lambda m, t: op.concat([t, t], axis=0),
        "concat a constant": lambda m, t: op.concat([t, m.weight(2, 2, 6, 9)], axis=1),
        "resize nearest": lambda m, t: op.image.resize2d(
            t, (12, 18), layout="NCHW", method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric", rounding_method="floor",
        ),
        "resize linear": lambda m, t: op.image.resize2d(
            t, (11, 7), layout="NCHW", method="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        "pad": lambda m, t: op.nn.pad(t, [0, 1, 2, 0, 1, 0, 0, 3], "constant", 0.75),
        "softmax channels": lambda m, t: op.nn.softmax(t, axis=1),
        "softmax columns": lambda m, t: op.nn.softmax(t, axis=-1),
        "softmax rows": lambda m, t: op.nn.softmax(t, axis=2),
        "mean of the image": lambda m, t: op.mean(t, axis=[2, 3], keepdims=True),
        "mean of the channels": lambda m, t: op.mean(t, axis=[1], keepdims=True),
        "max of columns, from behind": lambda m, t: op.max(t, axis=[-1], keepdims=True),
        "sum of batch and rows": lambda m, t: op.sum(t, axis=[0, 2], keepdims=True),
        "max pool": lambda m, t: op.nn.max_pool2d(t, [3, 2], strides=[2, 1], padding=[1, 0, 1, 1]),
        "max pool, ceil": lambda m, t: op.nn.max_pool2d(t, [2, 2], strides=[2, 2], ceil_mode=True),
        "max pool, dilated": lambda m, t: op.nn.max_pool2d(t, [2, 2], dilation=[2, 3]),
        "avg pool": lambda m, t: op.nn.avg_pool2d(t, [3, 3], strides=[2, 2], padding=[1] * 4),
        "avg pool with padding": lambda m, t: op.nn.avg_pool2d(
            t, [3, 3], padding=[1] * 4, count_include_pad=True
        ),
        "adaptive pool to 1": lambda m, t: op.nn.adaptive_avg_pool2d(t, [1, 1]),
        "adaptive pool": lambda m, t: op.nn.adaptive_avg_pool2d(t, [2, 3]),
        "conv": lambda m, t: op.nn.conv2d(t, m.weight(7, 5, 1, 1)),
        "conv, asymmetric": lambda m, t: op.nn.conv2d(
            t, m.weight(4, 5, 3, 2), strides=[2, 1], padding=[0, 1, 2, 0], dilation=[1, 2]
        ),
        "depthwise": lambda m, t: op.nn.conv2d(t, m.weight(5, 1, 3, 3), padding=1, groups=5),
        "depthwise, two outputs each": lambda m, t: op.nn.conv2d(
            t, m.weight(10, 1, 3, 3), strides=2, groups=5
        ),
        "squeeze and excite": lambda m, t: op.multiply(
            t,
            m.emit(
                op.sigmoid(
                    m.emit(
                        op.nn.conv2d(
                            m.emit(op.mean(t, axis=[2, 3], keepdims=True)), m.weight(5, 5, 1, 1)
                        )
                    )
                )
            ),
        ),
    }  # fmt: skip


def test_image_operators_stay_in_channels_last() -> None:
    from autotune.graph.layout import channels_last

    cases = staying_cases()
    changed = same(branches(cases), channels_last, list(cases))
    moved = ops(changed)["relax.permute_dims"]
    # One for the input, at most one for each output; nothing on the way.
    assert moved <= 1 + len(cases)


def test_operators_without_a_channels_last_form_get_the_original() -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    op = relax.op
    cases: dict[str, Callable[[Maker, Any], Any]] = {
        "reshape": lambda m, t: op.reshape(t, (2, 5, 54)),
        "flatten": lambda m, t: op.flatten(t),
        "permute to channels last": lambda m, t: op.permute_dims(t, [0, 2, 3, 1]),
        "permute otherwise": lambda m, t: op.permute_dims(t, [3, 1, 0, 2]),
        "reverse": lambda m, t: op.permute_dims(t),
        "mean without the axes": lambda m, t: op.mean(t, axis=[2, 3]),
        "mean of all": lambda m, t: op.mean(t, keepdims=True),
        "squeeze": lambda m, t: op.squeeze(m.emit(op.mean(t, axis=[2, 3], keepdims=True)), [2, 3]),
        "reflect": lambda m, t: op.nn.pad(t, [0, 0, 0, 0, 1, 1, 2, 2], "reflect"),
        "slice": lambda m, t: op.strided_slice(t, axes=[1, 3], begin=[1, 2], end=[4, 8]),
        "split": lambda m, t: relax.TupleGetItem(m.emit(op.split(t, [2], axis=1)), 1),
        "layer norm": lambda m, t: op.nn.layer_norm(t, m.weight(9), m.weight(9), axes=[-1]),
        "matmul": lambda m, t: op.matmul(t, m.weight(9, 4)),
        "add something of rank 5": lambda m, t: op.add(t, m.weight(3, 1, 1, 1, 1)),
        "argmax": lambda m, t: op.argmax(t, axis=1),
        "grouped conv": lambda m, t: op.nn.conv2d(
            m.emit(op.concat([t, t], axis=1)), m.weight(6, 5, 3, 3), groups=2
        ),
    }
    same(branches(cases), channels_last, list(cases))


def test_variables_broadcast_into_images() -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    op = relax.op

    def model(make: Maker, x: Any, c: Any, w: Any, full: Any, kernel: Any) -> Any:
        found = make.emit(op.nn.conv2d(x, kernel))
        return [make.emit(op.add(found, other)) for other in (c, w, full)]

    shapes = [(1, 3, 6, 9), (5, 1, 1), (9,), (1, 5, 1, 9), (5, 3, 1, 1)]
    same(relax_model(shapes, model), channels_last, ["(C,1,1)", "(W,)", "(1,C,1,W)"])


def test_signature_and_outputs_without_an_image_stay() -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    def model(make: Maker, x: Any, y: Any) -> Any:
        return [x, make.emit(relax.op.matmul(y, make.weight(4, 2))), make.weight(3)]

    same(relax_model([(1, 3, 5, 5), (3, 4)], model), channels_last)


# -- transposed convolution


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_transposed_convolution(kernel: int) -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    cases = []
    for stride in (1, 2, 3):
        for pad in {0, kernel // 2, kernel - 1}:
            for extra in {0, stride - 1}:
                if (4 - 1) * stride + kernel - 2 * pad + extra > 0:
                    cases.append((stride, pad, extra))

    def model(make: Maker, x: Any) -> Any:
        weight = make.weight(3, 4, kernel, kernel)
        return [
            make.emit(
                relax.op.nn.conv2d_transpose(
                    x,
                    weight,
                    strides=[stride, stride],
                    padding=[pad, pad, pad, pad],
                    output_padding=[extra, extra],
                )
            )
            for stride, pad, extra in cases
        ]

    names = [f"stride {s}, padding {p}, output padding {e}" for s, p, e in cases]
    changed = same(relax_model([(1, 3, 4, 5)], model), channels_last, names)
    assert "relax.nn.conv2d_transpose" not in ops(changed)


def test_transposed_convolution_with_unequal_axes_and_batch() -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    def model(make: Maker, x: Any) -> Any:
        return [
            make.emit(relax.op.nn.conv2d_transpose(x, make.weight(3, 2, *kernel), **options))
            for kernel, options in cases
        ]

    cases: list[tuple[tuple[int, int], dict[str, Any]]] = [
        ((2, 3), {"strides": [3, 2], "padding": [0, 1, 1, 0]}),
        ((4, 1), {"strides": [1, 3], "padding": [2, 0, 0, 0], "output_padding": [0, 2]}),
        ((3, 3), {"strides": [2, 2], "dilation": [2, 2]}),
    ]
    same(relax_model([(2, 3, 4, 5)], model), channels_last, [str(case) for case in cases])


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

    def needed(make: Maker, x: Any) -> Any:
        return [
            around(make, x, (6, 4), (3, 2, 5), None),
            around(make, x, (2, 12), (1, 2, 5), None),
            around(make, x, (6, 4), (2, 3, 5), make.weight(6, 5)),
            around(make, x, (6, 4), (2, 3, 5), make.weight(6, 1)),
            around(make, x, (3, 8), (3, 5), make.weight(5)),
        ]

    kept = same(relax_model([(2, 3, 4)], needed), drop_reshapes)
    assert ops(kept)["relax.reshape"] == 10


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


def test_functions_of_our_own_are_exact_to_a_few_units(target: Target) -> None:
    from tvm import relax

    names = ["exp", "erf", "tanh", "sigmoid", "nn.silu", "nn.gelu"]

    def model(make: Maker, x: Any) -> Any:
        found = [x]
        for name in names:
            made: Any = relax.op
            for part in name.split("."):
                made = getattr(made, part)
            found.append(make.emit(made(x)))
        return found

    x = np.concatenate([np.linspace(-20, 20, 4001), [-80, 80, 1e-6, -1e-6, 0, 1e-30]])
    x = x.astype("float32")
    _, *found = run(lowered(relax_model([x.shape], model), target), [x])
    from math import erf

    wide = x.astype(np.float64)
    errors = np.vectorize(erf)(wide)
    expected = {
        "exp": np.exp(wide),
        "erf": errors,
        "tanh": np.tanh(wide),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "nn.silu": wide / (1 + np.exp(-wide)),
        "nn.gelu": 0.5 * wide * (1 + np.vectorize(erf)(wide * 0.5**0.5)),
    }
    for name, result in zip(names, found, strict=True):
        # exp loses bits in proportion to its argument; silu and gelu are as large as theirs.
        larger = np.maximum(1.0, np.abs(wide))
        scale = {"exp": expected[name] * larger, "nn.silu": larger, "nn.gelu": larger}.get(name, 1)
        error = np.abs((result - expected[name]) / scale).max()
        assert error < 5e-7, f"{name} is off by {error:.2g}"


def test_softmax_takes_large_and_masked_scores(target: Target) -> None:
    from tvm import relax

    module = relax_model([(3, 33)], lambda make, x: relax.op.nn.softmax(x, axis=-1))
    x = np.random.default_rng(0).uniform(-300, 300, (3, 33)).astype("float32")
    x[1, 5:] = -np.inf
    x[2, ::2] = -1e9
    found = run(lowered(module, target), [x])[0]
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), rtol=2e-6, atol=1e-7)


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
