"""Channels last: the rewrite keeps what a model computes, and leaves no conversion on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.target import named
from tests.compiler.graphs import ops, same
from tests.compiler.models import Maker, relax_model


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


# -- along one axis


def test_one_axis_is_an_image_of_one_row() -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    op = relax.op
    cases: dict[str, Callable[[Maker, Any], Any]] = {
        "relu": lambda m, t: op.nn.relu(t),
        "add (C,1)": lambda m, t: op.add(t, m.weight(5, 1)),
        "add (1,C,1)": lambda m, t: op.add(t, m.weight(1, 5, 1)),
        "add (L,)": lambda m, t: op.add(m.weight(11), t),
        "multiply ()": lambda m, t: op.multiply(t, m.constant(2.5)),
        "add itself": lambda m, t: op.add(t, t),
        "add something of rank 4": lambda m, t: op.add(t, m.weight(3, 1, 1, 1)),
        "concat channels": lambda m, t: op.concat([t, m.emit(op.nn.relu(t))], axis=1),
        "concat length": lambda m, t: op.concat([t, t], axis=-1),
        "softmax channels": lambda m, t: op.nn.softmax(t, axis=1),
        "softmax length": lambda m, t: op.nn.softmax(t, axis=-1),
        "mean of the length": lambda m, t: op.mean(t, axis=[2], keepdims=True),
        "max of the channels": lambda m, t: op.max(t, axis=[1], keepdims=True),
        "mean without the axis": lambda m, t: op.mean(t, axis=[-1]),
        "max pool": lambda m, t: op.nn.max_pool1d(t, [3], strides=[2], padding=[1, 0]),
        "avg pool": lambda m, t: op.nn.avg_pool1d(t, [3], strides=[2], padding=[1, 1]),
        "conv": lambda m, t: op.nn.conv1d(
            t, m.weight(7, 5, 3), strides=[2], padding=[2, 1], dilation=[2]
        ),
        "depthwise": lambda m, t: op.nn.conv1d(t, m.weight(5, 1, 3), padding=[1, 1], groups=5),
        "transposed": lambda m, t: op.nn.conv1d_transpose(
            t, m.weight(5, 4, 4), strides=[3], padding=[1, 2], output_padding=[1]
        ),
        "permute to channels last": lambda m, t: op.permute_dims(t, [0, 2, 1]),
        "permute otherwise": lambda m, t: op.permute_dims(t, [2, 1, 0]),
        "pad": lambda m, t: op.nn.pad(t, [0, 0, 1, 0, 0, 2], "constant", 0.5),
        "reshape": lambda m, t: op.reshape(t, (2, 55)),
    }

    def model(make: Maker, x: Any) -> Any:
        found = make.emit(op.nn.conv1d(x, make.weight(5, 3, 3), padding=[1, 1]))
        return [make.emit(case(make, found)) for case in cases.values()]

    changed = same(relax_model([(2, 3, 11)], model), channels_last, list(cases))
    kinds = ops(changed)
    assert not {"relax.nn.conv1d", "relax.nn.conv1d_transpose", "relax.nn.max_pool1d"} & set(kinds)


# -- groups


@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(2, 3, 2), (4, 1, 3), (3, 2, 4)])
def test_transposed_convolution_in_groups(groups: int, inputs: int, outputs: int) -> None:
    from tvm import relax

    from autotune.graph.layout import channels_last

    def model(make: Maker, x: Any) -> Any:
        weight = make.weight(groups * inputs, outputs, 3, 4)
        return relax.op.nn.conv2d_transpose(
            x, weight, strides=[2, 3], padding=[1, 0, 1, 2], groups=groups
        )

    changed = same(relax_model([(2, groups * inputs, 4, 5)], model), channels_last)
    assert "relax.nn.conv2d_transpose" not in ops(changed)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "lanes"),
    [
        (4, 32, 32, "+avx512f"),
        (32, 4, 4, "+avx2"),
        (8, 3, 2, "+avx2"),
        (6, 1, 1, ""),
        (5, 2, 3, ""),
    ],
)
def test_merged_groups_compute_the_same(groups: int, inputs: int, outputs: int, lanes: str) -> None:
    from dataclasses import replace

    from tvm import relax

    from autotune.graph.groups import merged_groups
    from search_spaces.graph.expressions import array

    target = replace(named("x86-64", 2), features=(lanes,) if lanes else ())
    rng = np.random.default_rng(0)
    data = rng.uniform(-1, 1, (3, 3, inputs, groups * outputs)).astype("float32")
    merged, left = merged_groups(relax.const(data), groups, target)
    found = array(merged)
    several = groups // left
    assert found.shape == (3, 3, inputs * several, groups * outputs)
    own = outputs * several
    for column in range(groups * outputs):
        member = (column % own) // outputs
        mine = found[:, :, member * inputs : (member + 1) * inputs, column]
        assert np.array_equal(mine, data[:, :, :, column])
        others = np.delete(found[..., column], range(member * inputs, (member + 1) * inputs), 2)
        assert not others.any()
    # Whole vectors, or all groups in one.
    assert left == 1 or own % 4 == 0
