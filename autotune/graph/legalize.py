"""Our own computations for the operators whose stock ones schedule badly."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

from autotune.graph import elementary
from autotune.graph.blocked import blocked_convolution, can_be_blocked
from autotune.graph.elementary import Legaliser
from autotune.graph.groups import merged_groups
from search_spaces.graph.expressions import array, is_constant, shape_of
from search_spaces.task import Target


def table(target: Target) -> dict[str, Legaliser]:
    """What ``LegalizeOps`` takes: our computations by operator name, for ``target``."""
    return {
        "relax.nn.conv2d": lambda builder, call: _conv2d(builder, call, target),
        "relax.matmul": lambda builder, call: _matmul(builder, call, target),
        **elementary.TABLE,
    }


def _whole_vectors(weight: Any, target: Target) -> tuple[Any, int | None]:
    """A constant weight filled up with columns of zeros to whole vectors.

    A reduction whose last vector is full needs no condition in its inner loop. Returns the weight
    and how many of its columns count, None if all do.
    """
    shape = shape_of(weight)
    if not is_constant(weight) or not shape or str(weight.ty.dtype) != "float32":
        return weight, None
    missing = -shape[-1] % target.vector_of(shape[-1])
    if not missing:
        return weight, None
    filled = np.pad(array(weight), [(0, 0)] * (len(shape) - 1) + [(0, missing)])
    return relax.const(filled), shape[-1]


def _matmul(builder: Any, call: Any, target: Target) -> Any:
    """A product with constant weights; anything else stays with TVM."""
    data, weight = call.args
    shape = shape_of(data)
    kept = None
    if shape is not None and len(shape) > 1 and len(shape_of(weight) or ()) == 2:
        weight, kept = _whole_vectors(weight, target)
    if kept is None:
        return call.op.get_attr("FLegalize")(builder, call)
    return builder.call_te(_product, data, weight, kept=kept, primfunc_name_hint="matmul")


def _product(data: te.Tensor, weight: te.Tensor, kept: int) -> te.Tensor:
    depth, columns = (int(v) for v in weight.shape)
    k = te.reduce_axis((0, depth), "k")
    rows = [int(v) for v in data.shape][:-1]
    full = te.compute(
        (*rows, columns),
        lambda *i: te.sum(data[(*i[:-1], k)] * weight[k, i[-1]], axis=k),
        name="matmul",
    )
    return _cropped(full, kept)


def _cropped(full: te.Tensor, kept: int) -> te.Tensor:
    """The first ``kept`` columns."""
    shape = (*full.shape[:-1], kept)
    return te.compute(shape, lambda *i: full[i], name="crop", tag=topi.tag.ELEMWISE)


def _conv2d(builder: Any, call: Any, target: Target) -> Any:
    """Convolution in NHWC, or in blocks, as one reduction; anything else stays with TOPI."""
    a = call.attrs
    if can_be_blocked(call):
        return blocked_convolution(builder, call)
    if a.data_layout != "NHWC" or a.kernel_layout != "HWIO":
        return builder.call_te(
            topi.nn.conv,
            call.args[0],
            call.args[1],
            [int(s) for s in a.strides],
            [int(p) for p in a.padding],
            [int(d) for d in a.dilation],
            int(a.groups),
            a.data_layout,
            a.kernel_layout,
            a.out_dtype or None,
        )
    weight, groups, kept = call.args[1], int(a.groups), None
    channels, outputs = int(call.args[0].ty.shape.values[3]), int(weight.ty.shape.values[3])
    plain_depthwise = groups == channels == outputs
    if groups > 1 and not plain_depthwise and is_constant(weight):
        weight, groups = merged_groups(weight, groups, target)
    if groups == 1:
        weight, kept = _whole_vectors(weight, target)
    return builder.call_te(
        _conv2d_nhwc,
        call.args[0],
        weight,
        strides=tuple(int(s) for s in a.strides),
        pads=tuple(int(p) for p in a.padding),
        dilation=tuple(int(d) for d in a.dilation),
        groups=groups,
        kept=kept,
        primfunc_name_hint="conv2d" if groups == 1 else "grouped_conv2d",
    )


def _conv2d_nhwc(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    kept: int | None,
) -> te.Tensor:
    batch, height, width, channels = (int(v) for v in data.shape)
    kh, kw, per_group, outputs = (int(v) for v in kernel.shape)
    rows = (height + pads[0] + pads[2] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    if any(pads):
        data = topi.nn.pad(
            data, [0, pads[0], pads[1], 0], [0, pads[2], pads[3], 0], 0.0, name="pad"
        )
    if (kh, kw) == (1, 1) and strides != (1, 1) and not any(pads):
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

    def product(n: Any, h: Any, w: Any, o: Any) -> Any:
        if depthwise:
            channel = o
            inner: Any = 0
        else:
            inner = kc
            channel = kc
            if groups > 1:
                channel = tirx.floordiv(o, outputs // groups) * per_group + kc
        pixel = data[n, h * strides[0] + y * dilation[0], w * strides[1] + x * dilation[1], channel]
        value = pixel * kernel[y, x, inner, o]
        return te.sum(value, axis=taps) if taps else value

    name = "conv" if groups == 1 or depthwise else "grouped_conv"
    full = te.compute((batch, rows, columns, outputs), product, name=name)
    return full if kept is None else _cropped(full, kept)
