"""Weights in few bits, with a scale for each block of a row: as floats, once and for all.

What is stored is so small that models fit a graphics card; here products are of floats, as are
those that ONNX Runtime computes unless it is told otherwise (``accuracy_level``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

if TYPE_CHECKING:
    import numpy as np


def product(site: Site) -> Sequence[str]:
    """MatMulNBits."""
    import numpy as np

    x, packed, scales, zeros, order, bias = (site.input(i) for i in range(6))
    bits, block = site.attribute("bits", 4), site.attribute("block_size")
    rows, depth = site.attribute("N"), site.attribute("K")
    if order or bits not in (2, 4, 8) or site.attribute("weight_prepacked", 0):
        raise Unknown("MatMulNBits in another order, or of other than 2, 4 or 8 bits")
    blocks = -(-depth // block)
    stored = unpacked(site.constant(packed).reshape(rows, -1), bits)
    stored = stored.reshape(rows, blocks, block).astype(np.float32)
    size = site.constant(scales).reshape(rows, blocks, 1).astype(np.float32)
    middle = np.full((1, 1, 1), 1 << (bits - 1), np.float32)
    if zeros:
        known = site.constant(zeros)
        if known.dtype == np.uint8:
            known = unpacked(known.reshape(rows, -1), bits)[:, :blocks]
        middle = known.reshape(rows, blocks, 1).astype(np.float32)
    weight = ((stored - middle) * size).reshape(rows, -1)[:, :depth]
    dtype = site.constant(scales).dtype
    made = site.emit("MatMul", x, np.ascontiguousarray(weight.T).astype(dtype))
    return [site.emit("Add", made, bias) if bias else made]


def unpacked(array: np.ndarray, bits: int) -> np.ndarray:
    """The numbers in each row of bytes, the lowest bits first."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (array[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(array.shape[0], -1)


REWRITES = (Rewrite(("MatMulNBits",), product, domain=MICROSOFT),)
