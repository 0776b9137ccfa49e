"""Convolutions of images whose channels lie in blocks: [N, C / block, H, W, block]."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from tvm import relax, te, topi

from search_spaces.graph.expressions import array, is_constant

_BLOCKED = re.compile(r"NCHW(\d+)c")


def can_be_blocked(call: Any) -> bool:
    """Whether ``call``, a convolution, is one of those that ``blocked_convolution`` computes."""
    a = call.attrs
    return (
        _BLOCKED.fullmatch(a.data_layout) is not None
        and a.kernel_layout == "HWIO"
        and int(a.groups) == 1
        and is_constant(call.args[1])
    )


def blocked_convolution(builder: Any, call: Any) -> Any:
    """The computation of ``call``, one reduction over the window, blocks and channels in them.

    Named "blocked_conv", by which ``search_spaces.cpu.structure`` knows it.
    """
    a = call.attrs
    data, weight = call.args
    block = int(data.ty.shape.values[4])
    kernel = array(weight)
    kh, kw, inputs, outputs = kernel.shape
    return builder.call_te(
        _computed,
        data,
        # The same numbers: only the axis of the input channels is two.
        relax.const(np.ascontiguousarray(kernel.reshape(kh, kw, inputs // block, block, outputs))),
        strides=tuple(int(s) for s in a.strides),
        pads=tuple(int(p) for p in a.padding),
        dilation=tuple(int(d) for d in a.dilation),
        primfunc_name_hint="conv2d",
    )


def _computed(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> te.Tensor:
    batch, blocks, height, width, block = (int(v) for v in data.shape)
    kh, kw, _, _, outputs = (int(v) for v in kernel.shape)
    rows = (height + pads[0] + pads[2] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    sh, sw = strides
    if any(pads):
        data = topi.nn.pad(
            data, [0, 0, pads[0], pads[1], 0], [0, 0, pads[2], pads[3], 0], 0.0, name="pad"
        )
    elif (kh, kw) == (1, 1) and strides != (1, 1):
        source, (sh, sw) = data, (1, 1)
        data = te.compute(
            (batch, blocks, rows, columns, block),
            lambda n, k, h, w, c: source[n, k, h * strides[0], w * strides[1], c],
            name="pad_stride",
        )
    ky = te.reduce_axis((0, kh), "ky") if kh > 1 else 0
    kx = te.reduce_axis((0, kw), "kx") if kw > 1 else 0
    ko = te.reduce_axis((0, blocks), "ko") if blocks > 1 else 0
    ki = te.reduce_axis((0, block), "ki")
    taps = [axis for axis in (ky, kx, ko, ki) if not isinstance(axis, int)]

    def product(n: Any, o: Any, h: Any, w: Any, c: Any) -> Any:
        pixel = data[n, ko, h * sh + ky * dilation[0], w * sw + kx * dilation[1], ki]
        return te.sum(pixel * kernel[ky, kx, ko, ki, o * block + c], axis=taps)

    shape = (batch, outputs // block, rows, columns, block)
    return te.compute(shape, product, name="blocked_conv")
