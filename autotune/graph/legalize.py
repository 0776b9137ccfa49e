"""Our own computations for the operators whose stock ones schedule badly."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, topi

from autotune.graph import elementary
from autotune.graph.blocked import blocked_convolution, can_be_blocked
from autotune.graph.elementary import Legaliser
from autotune.graph.groups import merged_groups
from autotune.graph.sums import convolution, product
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
    return builder.call_te(product, data, weight, kept=kept, primfunc_name_hint="matmul")


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
        convolution,
        call.args[0],
        weight,
        strides=tuple(int(s) for s in a.strides),
        pads=tuple(int(p) for p in a.padding),
        dilation=tuple(int(d) for d in a.dilation),
        groups=groups,
        kept=kept,
        primfunc_name_hint="conv2d" if groups == 1 else "grouped_conv2d",
    )
