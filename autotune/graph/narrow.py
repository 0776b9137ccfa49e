"""Convolutions and products of short numbers, as kernels for instructions that sum them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from autotune.graph.sums import convolution, product
from search_spaces.cpu.dot import Dot
from search_spaces.cpu.tile import depth_of, has_tiles
from search_spaces.task import Target

OUT_ELEMENTWISE = 4
"""What TVM calls a kernel that element by element operators may follow (kOutEWiseFusable)."""


def filled(weight: np.ndarray, dot: Dot, target: Target) -> np.ndarray:
    """``weight`` filled up with zeros to whole vectors of columns, and whole steps of them.

    Those of tiles where there are tiles and they are half full at least.
    """
    depth, columns = weight.shape[-2:]
    tile = depth_of(dot)
    step = tile if has_tiles(dot, target) and 2 * depth >= tile else dot.depth
    padding = [(0, 0)] * weight.ndim
    padding[-2:] = (0, -depth % step), (0, -columns % dot.lanes(target))
    return np.pad(weight, padding)


def summed(
    builder: Any, call: Any, x: Any, kernel: np.ndarray, kept: int, dot: Dot, beyond: int = 0
) -> Any:
    """``call`` of data ``x`` and a ``kernel`` that was ``filled``, of which ``kept`` columns count.

    ``beyond`` is what lies beyond the image. The sums are of the type that ``dot`` adds up in.
    """
    zero, name = tirx.const(beyond, dot.types[0]), f"{dot.kind}_conv"
    a = call.attrs

    def term(one: Any, other: Any) -> Any:
        return dot.widen(one) * dot.widen(other)

    def matmul(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
        return _product(data, weight, kept, term, zero, f"{dot.kind}_matmul")

    def conv2d(data: te.Tensor, weight: te.Tensor) -> te.Tensor:
        strides, pads, dilation = (
            [int(v) for v in values] for values in (a.strides, a.padding, a.dilation)
        )
        cut = None if kept == kernel.shape[3] else kept
        return convolution(data, weight, strides, pads, dilation, 1, cut, term, zero, name)

    made = matmul if call.op.name == "relax.matmul" else conv2d
    hint = f"{dot.kind}_{made.__name__}"
    # TVM sees no sum of products in what is more than a cast.
    fusable = {"op_pattern": OUT_ELEMENTWISE}
    return builder.call_te(
        made, x, relax.const(kernel), primfunc_name_hint=hint, primfunc_attrs=fusable
    )


def _product(
    data: te.Tensor,
    weight: te.Tensor,
    kept: int,
    term: Callable[[Any, Any], Any],
    zero: Any,
    name: str,
) -> te.Tensor:
    """Rows of ``data`` by ``weight``, [K, N]; K filled up to what is multiplied."""
    depth = int(weight.shape[0])
    *rows, given = (int(v) for v in data.shape)
    if given < depth:
        source = data
        data = te.compute(
            (*rows, depth),
            lambda *i: tirx.if_then_else(i[-1] < given, source[(*i[:-1], i[-1])], zero),
            name="pad",
        )
    return product(data, weight, kept, term, name)
