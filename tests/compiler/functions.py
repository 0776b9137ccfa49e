"""The fused functions of models, by name: each takes extents and gives a Relax module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.compiler.models import Maker, relax_model


def op(name: str) -> Any:
    """A Relax operator by its dotted name; TVM is imported here and not with this file."""
    from tvm import relax

    found: Any = relax.op
    for part in name.split("."):
        found = getattr(found, part)
    return found


def dense(m: int, k: int, n: int, batch: int = 0) -> Any:
    """gelu(x w + b), with a batch of sequences where ``batch`` is not 0."""

    def model(make: Maker, x: Any) -> Any:
        product = make.emit(op("matmul")(x, make.weight(k, n)))
        return op("nn.gelu")(make.emit(op("add")(product, make.weight(n))))

    return relax_model([(batch, m, k) if batch else (m, k)], model)


def attention(batch: int, m: int, k: int, n: int, scaled: bool) -> Any:
    """A batched product of two variable operands, scaled as scores are."""
    from tvm import relax

    def model(make: Maker, x: Any, y: Any) -> Any:
        product = op("matmul")(x, y)
        return op("multiply")(make.emit(product), relax.const(0.125)) if scaled else product

    return relax_model([(batch, m, k), (batch, k, n)], model)


def convolution(
    image: tuple[int, int],
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, int, int, int],
    dilation: int,
    residual: bool,
    batch: int = 1,
) -> Any:
    """relu(conv + bias [+ residual]) in NHWC."""
    rows, columns = (
        (extent + low + high - (k - 1) * dilation - 1) // stride + 1
        for extent, low, high, k in zip(image, pads[:2], pads[2:], kernel, strict=True)
    )

    def model(make: Maker, x: Any, *rest: Any) -> Any:
        found = make.emit(
            op("nn.conv2d")(
                x,
                make.weight(*kernel, channels, outputs),
                strides=stride,
                padding=pads,
                dilation=dilation,
                data_layout="NHWC",
                kernel_layout="HWIO",
            )
        )
        found = make.emit(op("add")(found, make.weight(1, 1, 1, outputs)))
        for other in rest:
            found = make.emit(op("add")(found, other))
        return op("nn.relu")(found)

    more = [(batch, rows, columns, outputs)] if residual else []
    return relax_model([(batch, *image, channels), *more], model)


def depthwise(image: tuple[int, int], channels: int, kernel: int, stride: int, pad: int) -> Any:
    def model(make: Maker, x: Any) -> Any:
        found = make.emit(
            op("nn.conv2d")(
                x,
                make.weight(kernel, kernel, 1, channels),
                strides=stride,
                padding=pad,
                groups=channels,
                data_layout="NHWC",
                kernel_layout="HWIO",
            )
        )
        return op("clip")(make.emit(op("add")(found, make.weight(1, 1, 1, channels))), 0, 6)

    return relax_model([(1, *image, channels)], model)


def grouped(
    image: tuple[int, int], groups: int, inputs: int, outputs: int, kernel: int, stride: int
) -> Any:
    """relu(grouped conv + bias); ``inputs`` and ``outputs`` are channels of one group."""

    def model(make: Maker, x: Any) -> Any:
        found = make.emit(
            op("nn.conv2d")(
                x,
                make.weight(kernel, kernel, inputs, groups * outputs),
                strides=stride,
                padding=kernel // 2,
                groups=groups,
                data_layout="NHWC",
                kernel_layout="HWIO",
            )
        )
        bias = make.weight(1, 1, 1, groups * outputs)
        return op("nn.relu")(make.emit(op("add")(found, bias)))

    return relax_model([(1, *image, groups * inputs)], model)


def pooling(
    kind: str, image: tuple[int, int], channels: int, size: int, stride: int, pad: int
) -> Any:
    def model(make: Maker, x: Any) -> Any:
        return op(f"nn.{kind}_pool2d")(
            x, pool_size=[size, size], strides=[stride, stride], padding=[pad] * 4, layout="NHWC"
        )

    return relax_model([(1, *image, channels)], model)


def mean(image: tuple[int, int], channels: int) -> Any:
    return relax_model(
        [(1, *image, channels)], lambda make, x: op("mean")(x, axis=[1, 2], keepdims=True)
    )


def softmax(rows: Sequence[int], length: int) -> Any:
    return relax_model([(*rows, length)], lambda make, x: op("nn.softmax")(x, axis=-1))


def layer_norm(rows: Sequence[int], length: int, residual: bool) -> Any:
    def model(make: Maker, x: Any, *rest: Any) -> Any:
        for other in rest:
            x = make.emit(op("add")(x, other))
        gamma, beta = make.weight(length), make.weight(length)
        return op("nn.layer_norm")(x, gamma, beta, axes=[-1])

    return relax_model([(*rows, length)] * (2 if residual else 1), model)


def transpose(shape: Sequence[int], order: Sequence[int]) -> Any:
    return relax_model([tuple(shape)], lambda make, x: op("permute_dims")(x, list(order)))


def concat(rows: tuple[int, int], parts: Sequence[int]) -> Any:
    def model(make: Maker, *inputs: Any) -> Any:
        return op("nn.relu")(make.emit(op("concat")(list(inputs), axis=-1)))

    return relax_model([(*rows, part) for part in parts], model)


def elementwise(shape: Sequence[int]) -> Any:
    def model(make: Maker, x: Any, y: Any) -> Any:
        found = make.emit(op("multiply")(make.emit(op("add")(x, y)), make.weight(shape[-1])))
        return op("multiply")(make.emit(op("sigmoid")(found)), x)

    return relax_model([tuple(shape)] * 2, model)


def biased(shape: Sequence[int]) -> Any:
    """Broadcast along all but the last axis, which no vector need divide."""

    def model(make: Maker, x: Any) -> Any:
        return op("tanh")(make.emit(op("add")(x, make.weight(shape[-1]))))

    return relax_model([tuple(shape)], model)


def shuffled(image: tuple[int, int], block: int, channels: int) -> Any:
    """Depth to space in channels-last, with a bias: index arithmetic through and through."""
    rows, columns = image

    def model(make: Maker, x: Any) -> Any:
        split = op("reshape")(x, [1, rows, columns, block, block, channels])
        mixed = op("permute_dims")(make.emit(split), [0, 1, 3, 2, 4, 5])
        full = op("reshape")(make.emit(mixed), [1, rows * block, columns * block, channels])
        return op("nn.relu")(make.emit(op("add")(make.emit(full), make.weight(channels))))

    return relax_model([(1, rows, columns, block * block * channels)], model)


def padded(shape: tuple[int, int, int], widths: Sequence[int]) -> Any:
    return relax_model([shape], lambda make, x: op("nn.pad")(x, list(widths), "constant", 0.25))


def sliced(shape: tuple[int, int, int], begin: int, step: int) -> Any:
    def model(make: Maker, x: Any) -> Any:
        ends = [shape[1], shape[2]]
        return op("strided_slice")(
            x, axes=[1, 2], begin=[begin, begin], end=ends, strides=[step, step]
        )

    return relax_model([shape], model)


def resized(image: tuple[int, int], channels: int, size: tuple[int, int], method: str) -> Any:
    def model(make: Maker, x: Any) -> Any:
        return op("image.resize2d")(x, size, layout="NHWC", method=method)

    return relax_model([(1, *image, channels)], model)


def gathered(rows: int, length: int, indices: Sequence[int]) -> Any:
    def model(make: Maker, x: Any) -> Any:
        return op("take")(x, make.constant(list(indices), "int32"), axis=0)

    return relax_model([(rows, length)], model)


def argmax(shape: Sequence[int]) -> Any:
    """A reduction that carries two values, which no template takes."""
    return relax_model([tuple(shape)], lambda make, x: op("argmax")(x, axis=-1))
