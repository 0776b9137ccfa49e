"""Convolutions and products between DequantizeLinear, as products of the whole numbers themselves.

What exporters write for an int8 model is float arithmetic on numbers that were whole: real = scale
* (stored - zero). Here the scales are taken out of the sum, so that what is left to sum up is
whole, and a target that can multiply whole numbers faster does so (``autotune.graph.integers``).
Elsewhere it is the same product of floats as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.dtypes import EXACT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site
from autotune.frontends.onnx_rewrites.quantised import window_of

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class _Stored:
    """A tensor as it is stored: ``real = scale * (name - zero)``, by ``axis`` where not by all."""

    name: str
    scale: np.ndarray
    zero: np.ndarray
    axis: int

    @property
    def single(self) -> bool:
        """Whether all of the tensor has one scale."""
        return self.scale.size == 1


def product(site: Site) -> Sequence[str] | None:
    """Conv, MatMul or Gemm of two dequantised tensors, the second a constant, as above."""
    import numpy as np

    data, weight = (_stored(site, site.input(i)) for i in (0, 1))
    if data is None or weight is None or not data.single or data.zero.size != 1:
        return None
    stored = site.facts.constant(weight.name)
    if stored is None or stored.dtype.itemsize != 1:
        return None
    columns = _columns(site, stored)
    if columns is None or not (weight.single or weight.axis % stored.ndim == columns):
        return None
    along = [1] * stored.ndim
    along[columns] = -1
    whole = stored.astype(np.float32) - weight.zero.reshape(along).astype(np.float32)
    x = site.cast(data.name, np.int32)
    if data.zero.any():
        x = site.emit("Sub", x, np.asarray(data.zero.reshape(()), np.int32))
    x = site.cast(x, np.float32)
    rank = 0
    if site.operator == "Conv":
        rank = stored.ndim - 2
        total = site.emit("Conv", x, whole, **window_of(site))
    else:
        total = site.emit("MatMul", x, whole.T if site.attribute("transB", 0) else whole)
    scale = data.scale.reshape(()) * weight.scale.reshape(-1)

    def by_column(values: Any) -> np.ndarray:
        array = np.asarray(values, np.float32)
        return array.reshape(() if array.size == 1 else (array.size, *(1,) * rank))

    bias = site.input(2)
    kept_bias = _stored(site, bias, np.int32) if bias else None
    stored_bias = None if kept_bias is None else site.facts.constant(kept_bias.name)
    if kept_bias is not None and stored_bias is not None and not kept_bias.zero.any():
        same = np.allclose(kept_bias.scale.reshape(-1), scale, rtol=1e-5, atol=0)
        if same and np.abs(stored_bias.astype(np.float64)).max() < EXACT:
            # A bias in the units of the sum is a part of it.
            total, bias = site.emit("Add", total, by_column(stored_bias.reshape(-1))), ""
    real = site.emit("Mul", total, by_column(scale))
    if bias:
        shape = site.shape(bias)
        real = site.emit("Add", real, site.reshape(bias, (*shape, *(1,) * rank)) if rank else bias)
    return [real]


def _stored(site: Site, name: str, dtype: Any = None) -> _Stored | None:
    """What ``name`` is dequantised from: 8-bit numbers, or those of ``dtype``; None if it is not.

    Scale and zero point have to be known.
    """
    import numpy as np

    node = site.facts.maker(name)
    if node is None or node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return None
    kind = site.facts.dtype(node.input[0])
    wanted = (np.dtype(dtype),) if dtype is not None else (np.dtype(np.int8), np.dtype(np.uint8))
    scale = site.facts.constant(node.input[1])
    zero: np.ndarray | None = np.zeros((), np.int32)
    if len(node.input) > 2 and node.input[2]:
        zero = site.facts.constant(node.input[2])
    attributes = {a.name: a.i for a in node.attribute}
    if kind not in wanted or scale is None or zero is None or attributes.get("block_size", 0):
        return None
    if scale.dtype != np.float32 or scale.ndim > 1:
        return None
    return _Stored(node.input[0], scale, zero, attributes.get("axis", 1))


def _columns(site: Site, weight: np.ndarray) -> int | None:
    """The axis of the weights that is one of the result's; None where this is no such product."""
    if site.operator == "Conv":
        return 0 if weight.ndim in (3, 4) else None
    if weight.ndim != 2:
        return None
    if site.operator == "MatMul":
        return 1
    plain = all(site.attribute(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if not plain or site.attribute("transA", 0):
        return None
    return 0 if site.attribute("transB", 0) else 1


REWRITE = Rewrite(("Conv", "MatMul", "Gemm"), product, known=True, always=True)
