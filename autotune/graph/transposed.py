"""A transposed convolution as a convolution and a rearrangement of its output.

With stride s, the output pixels of one phase (row mod s, column mod s) are an ordinary
convolution with every s-th tap of the kernel. All phases together are one convolution with s*s
times the output channels, whose result is laid out by depth-to-space (Shi et al., "Is the
deconvolution layer the same as a convolutional layer?", 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from autotune.graph.forms import window
from search_spaces.graph.expressions import array


def can_be_convolution(call: Any) -> bool:
    """Whether ``as_convolution`` covers ``call``: no dilation, and TVM's default layouts."""
    a = call.attrs
    layouts = (a.data_layout, a.kernel_layout)
    known = layouts in (("NCHW", "IOHW"), ("NCW", "IOW"))
    return known and all(int(d) == 1 for d in a.dilation)


def as_convolution(builder: Any, data: Any, call: Any) -> Any:
    """The NHWC equivalent of ``call``, a transposed convolution in NCHW with constant IOHW weights.

    ``data`` is its input in NHWC. Along one axis ("NCW") it is one of images of a single row.
    """
    a = call.attrs
    weight = array(call.args[1])
    groups = int(a.groups)
    strides, _, pads = window(a.strides, a.dilation, a.padding)
    extra = [int(p) for p in a.output_padding]
    if weight.ndim == 3:
        weight, extra = weight[:, :, None], [0, *extra]
    inputs, outputs, kh, kw = weight.shape
    taps = [-(-k // s) for k, s in zip((kh, kw), strides, strict=True)]
    member = inputs // groups
    shape = (taps[0], taps[1], member, groups, strides[0], strides[1], outputs)
    kernel = np.zeros(shape, weight.dtype)
    by_group = weight.reshape(groups, member, outputs, kh, kw).transpose(1, 0, 2, 3, 4)
    for y in range(kh):
        for x in range(kw):
            # Output row h gets input row (h - y) / s: later taps look at earlier rows.
            ty, py = taps[0] - 1 - y // strides[0], y % strides[0]
            tx, px = taps[1] - 1 - x // strides[1], x % strides[1]
            kernel[ty, tx, :, :, py, px, :] = by_group[..., y, x]
    kernel = kernel.reshape(taps[0], taps[1], member, -1)
    batch, height, width, _ = (int(v) for v in data.ty.shape.values)
    phases = builder.emit(
        relax.op.nn.conv2d(
            data,
            relax.const(kernel),
            strides=[1, 1],
            padding=[taps[0] - 1, taps[1] - 1, taps[0] - 1, taps[1] - 1],
            groups=groups,
            data_layout="NHWC",
            kernel_layout="HWIO",
            out_dtype=a.out_dtype or None,
        )
    )
    rows, columns = height + taps[0] - 1, width + taps[1] - 1
    split = builder.emit(
        relax.op.reshape(phases, [batch, rows, columns, groups, strides[0], strides[1], outputs])
    )
    mixed = builder.emit(relax.op.permute_dims(split, [0, 1, 4, 2, 5, 3, 6]))
    full = relax.op.reshape(
        mixed, [batch, rows * strides[0], columns * strides[1], groups * outputs]
    )
    wanted = [
        (height - 1) * strides[0] + kh - pads[0] - pads[2] + extra[0],
        (width - 1) * strides[1] + kw - pads[1] - pads[3] + extra[1],
    ]
    have = [rows * strides[0] - pads[0], columns * strides[1] - pads[1]]
    if any(w > h for w, h in zip(wanted, have, strict=True)):
        grow = [max(0, w - h) for w, h in zip(wanted, have, strict=True)]
        full = relax.op.nn.pad(builder.emit(full), [0, 0, 0, grow[0], 0, grow[1], 0, 0])
    if pads[0] or pads[1] or wanted != have:
        ends = [pads[0] + wanted[0], pads[1] + wanted[1]]
        full = relax.op.strided_slice(
            builder.emit(full), axes=[1, 2], begin=[pads[0], pads[1]], end=ends
        )
    return full
