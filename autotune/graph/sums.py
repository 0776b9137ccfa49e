"""Sums of products as one reduction each: matrix products and convolutions, channels last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx, topi

Term = Callable[[Any, Any], Any]
"""What is summed, of an element of the data and one of the weights."""


def times(one: Any, other: Any) -> Any:
    """Their product, in their own type."""
    return one * other


def product(
    data: te.Tensor, weight: te.Tensor, kept: int, term: Term = times, name: str = "matmul"
) -> te.Tensor:
    """Rows of ``data`` by ``weight``, [K, N], of which the first ``kept`` columns count."""
    depth, columns = (int(v) for v in weight.shape)
    k = te.reduce_axis((0, depth), "k")
    rows = [int(v) for v in data.shape][:-1]
    full = te.compute(
        (*rows, columns),
        lambda *i: te.sum(term(data[(*i[:-1], k)], weight[k, i[-1]]), axis=k),
        name=name,
    )
    return full if kept == columns else _cropped(full, kept)


def _cropped(full: te.Tensor, kept: int) -> te.Tensor:
    """The first ``kept`` columns."""
    shape = (*full.shape[:-1], kept)
    return te.compute(shape, lambda *i: full[i], name="crop", tag=topi.tag.ELEMWISE)


def convolution(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    kept: int | None,
    term: Term = times,
    beyond: Any = 0.0,
    name: str = "conv",
) -> te.Tensor:
    """A convolution, channels last, of which the first ``kept`` outputs count (None: all).

    ``beyond`` is what lies beyond the image. Where it has fewer channels than the kernel it is
    filled up with that as well.
    """
    batch, height, width, given = (int(v) for v in data.shape)
    kh, kw, per_group, outputs = (int(v) for v in kernel.shape)
    channels = max(given, per_group)
    rows = (height + pads[0] + pads[2] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    if any(pads) or given < channels:
        after = [0, pads[2], pads[3], channels - given]
        data = topi.nn.pad(data, [0, pads[0], pads[1], 0], after, beyond, name="pad")
    if (kh, kw) == (1, 1) and tuple(strides) != (1, 1) and not any(pads):
        # What a strided 1x1 convolution reads, side by side, makes it a product of matrices: its
        # weights are read once for all pixels, not once for each row of them.
        sh, sw = strides
        strides = (1, 1)
        source = data
        data = te.compute(
            (batch, rows, columns, channels),
            lambda n, h, w, c: source[n, h * sh, w * sw, c],
            name="pad_stride",
        )
    # Axes of extent one are left out: fewer loops to schedule, and one key for equal work.

    ky = te.reduce_axis((0, kh), "ky") if kh > 1 else None
    kx = te.reduce_axis((0, kw), "kx") if kw > 1 else None
    depthwise = groups == channels and outputs == channels
    kc = None if depthwise else te.reduce_axis((0, per_group), "kc")
    taps = [axis for axis in (ky, kx, kc) if axis is not None]
    y = ky if ky is not None else 0
    x = kx if kx is not None else 0

    def summed(n: Any, h: Any, w: Any, o: Any) -> Any:
        if depthwise:
            channel = o
            inner: Any = 0
        else:
            inner = kc
            channel = kc
            if groups > 1:
                channel = tirx.floordiv(o, outputs // groups) * per_group + kc
        pixel = data[n, h * strides[0] + y * dilation[0], w * strides[1] + x * dilation[1], channel]
        value = term(pixel, kernel[y, x, inner, o])
        return te.sum(value, axis=taps) if taps else value

    name = name if groups == 1 or depthwise else f"grouped_{name}"
    full = te.compute((batch, rows, columns, outputs), summed, name=name)
    return full if kept is None else _cropped(full, kept)
