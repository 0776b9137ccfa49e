"""Attention as ONNX Runtime's optimiser writes it, in the parts that exporters write.

In these parts ``search_spaces/graph/attention.py`` knows it again as one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.frontends.onnx_contrib.products import scaled
from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

if TYPE_CHECKING:
    import numpy as np

MASKED = -10000.0
"""What ONNX Runtime adds to the scores of masked keys, unless told: not an infinity, so a row of
which all keys are masked is one of which none is."""


def attention(site: Site) -> Sequence[str]:
    """Attention of com.microsoft: with the projections of queries, keys and values."""
    x, weights, bias, mask, past, added = (site.input(i) for i in range(6))
    if site.input(6) or site.attribute("past_present_share_buffer", 0):
        raise Unknown("Attention with a buffer of keys and values that is shared")
    if site.attribute("do_rotary", 0):
        raise Unknown("Attention that turns its queries and keys by their places")
    matrix = site.constant(weights)
    sizes = site.attribute("qkv_hidden_sizes") or [matrix.shape[1] // 3] * 3
    heads = site.attribute("num_heads")
    parts = [site.emit("MatMul", x, part) for part in _parts(matrix, sizes)]
    if bias:
        shifts = _parts(site.constant(bias), sizes)
        parts = [site.emit("Add", y, shift) for y, shift in zip(parts, shifts, strict=True)]
    return projected(site, parts, sizes[0] // heads, mask, past, added, site.shape(x))


def from_bytes(site: Site) -> Sequence[str]:
    """QAttention: the projections are products of 8-bit numbers, the rest is in floats."""
    x, weights, bias, x_scale, w_scale, mask, x_zero, w_zero, past = (
        site.input(i) for i in range(9)
    )
    if site.attribute("past_present_share_buffer", 0) or site.attribute("do_rotary", 0):
        raise Unknown("QAttention with a shared buffer, or that turns its queries by their places")
    matrix = site.constant(weights)
    sizes = [matrix.shape[1] // 3] * 3

    def split(name: str) -> list[Any]:
        known = site.constant(name) if name else None
        return [""] * 3 if known is None else _each(known, sizes)

    columns = zip(*(split(name) for name in (weights, w_scale, w_zero, bias)), strict=True)
    parts = [
        scaled(site, x, part, x_scale, scale, x_zero, zero, shift)
        for part, scale, zero, shift in columns
    ]
    width = sizes[0] // site.attribute("num_heads")
    return projected(site, parts, width, mask, past, "", site.shape(x))


def _each(values: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """What of a scale or the like is of each part of the columns."""
    return [values.reshape(())] * len(sizes) if values.size == 1 else _parts(values, sizes)


def projected(
    site: Site,
    parts: Sequence[str],
    width: int,
    mask: str,
    past: str,
    added: str,
    shape: Sequence[int],
) -> Sequence[str]:
    """Output and present state of queries, keys and values that still have all heads in an axis.

    ``shape`` is that of what they were projected from.
    """
    import numpy as np

    q, k, v = (_by_head(site, part) for part in parts)
    length = 0
    if past:
        length = site.shape(past)[3]
        keys, values = (site.take(past, np.asarray(i), 0) for i in (0, 1))
        k = site.emit("Concat", keys, k, axis=2)
        v = site.emit("Concat", values, v, axis=2)
    biases = [added] if added else []
    biases += _masks(site, mask, shape[0], shape[1], length + shape[1], length)
    present = ""
    if len(site.node.output) > 1 and site.node.output[1]:
        present = site.emit("Concat", site.unsqueeze(k, 0), site.unsqueeze(v, 0), axis=0)
    return [_attended(site, q, k, v, width, biases)[0], present]


def _parts(array: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Parts of the last axis of ``sizes``, each contiguous."""
    import numpy as np

    parts = np.split(array, np.cumsum(sizes)[:-1], axis=-1)
    return [np.ascontiguousarray(part) for part in parts]


def multi_head(site: Site) -> Sequence[str]:
    """MultiHeadAttention: of what was projected before, and of other keys than the queries'."""
    query, key, value, bias, mask, added, past_key, past_value, filled, beams = (
        site.input(i) for i in range(10)
    )
    if filled or beams:
        raise Unknown("MultiHeadAttention with a buffer of keys and values that is shared")
    shape = site.shape(query)
    if not key or len(shape) != 3:
        raise Unknown("MultiHeadAttention with queries, keys and values in one tensor")
    count, rows, hidden = shape
    keys = site.shape(key)
    parts = [query, key, value]
    if bias:
        last = site.shape(value)[-1]
        shifts = _parts(site.constant(bias), [hidden, hidden, last])
        parts = [site.emit("Add", x, shift) for x, shift in zip(parts, shifts, strict=True)]
    q, k, v = (
        part if len(site.facts.shape(name) or ()) == 4 else _by_head(site, part)
        for part, name in zip(parts, (query, key, value), strict=True)
    )
    length = 0
    if past_key:
        length = site.shape(past_key)[2]
        k = site.emit("Concat", past_key, k, axis=2)
        v = site.emit("Concat", past_value, v, axis=2)
    total = length + (keys[2] if len(keys) == 4 else keys[1])
    biases = [added] if added else []
    biases += _masks(site, mask, count, rows, total, total - rows if length else 0)
    y, scores = _attended(site, q, k, v, hidden // site.attribute("num_heads"), biases)
    return [y, k, v, scores]


def _by_head(site: Site, x: str) -> str:
    """[batch, length, heads * width] as [batch, heads, length, width]."""
    return site.transpose(site.reshape(x, (0, 0, site.attribute("num_heads"), -1)), (0, 2, 1, 3))


def _attended(
    site: Site, q: str, k: str, v: str, width: int, biases: Sequence[Any]
) -> tuple[str, str]:
    """The values by the softmax of the scores, [batch, length, heads * width]; and the scores."""
    import numpy as np

    scale = site.attribute("scale", 0.0) or 1 / math.sqrt(width)
    scores = site.emit("MatMul", q, site.transpose(k, (0, 1, 3, 2)))
    scores = site.emit("Mul", scores, np.asarray(scale, np.float32))
    for bias in biases:
        scores = site.emit("Add", scores, bias)
    y = site.emit("MatMul", site.emit("Softmax", scores, axis=3), v)
    return site.reshape(site.transpose(y, (0, 2, 1, 3)), (0, 0, -1)), scores


def _masks(site: Site, mask: str, batch: int, rows: int, keys: int, past: int) -> list[Any]:
    """What is added to the scores, [batch, heads, rows, keys] or what broadcasts to it."""
    import numpy as np

    low = np.asarray(site.attribute("mask_filter_value", MASKED), np.float32)
    found: list[Any] = []
    if mask:
        seen = _seen(site, mask, batch, keys)
        found.append(site.emit("Where", seen, np.asarray(0, np.float32), low))
    if site.attribute("unidirectional", 0) and rows > 1:
        ahead = np.arange(keys)[None, :] > np.arange(rows)[:, None] + past
        lowest = np.finfo(np.float32).min / np.float32(2)
        found.append(np.where(ahead, lowest, np.float32(0)).astype(np.float32)[None, None])
    return found


def _seen(site: Site, mask: str, batch: int, keys: int) -> str:
    """Which keys are seen, from a mask of two or three axes, or from where each row ends."""
    import numpy as np

    shape = site.shape(mask)
    places = np.arange(keys, dtype=np.int32)[None, None, None]
    if len(shape) == 1 and shape[0] in (batch, 2 * batch):
        ends = site.reshape(site.slice(mask, 0, batch, 0), (batch, 1, 1, 1))
        seen = site.emit("Less", places, ends)
        if shape[0] == batch:
            return seen
        starts = site.reshape(site.slice(mask, batch, 2 * batch, 0), (batch, 1, 1, 1))
        return site.emit("And", seen, site.emit("Not", site.emit("Less", places, starts)))
    if len(shape) not in (2, 3) or shape[-1] != keys:
        raise Unknown(f"{site.operator} with a mask of the shape {shape}")
    axes = (shape[0], 1, 1 if len(shape) == 2 else shape[1], keys)
    return site.emit("Greater", site.reshape(mask, axes), np.asarray(0, np.int32))


REWRITES = (
    Rewrite(("Attention",), attention, domain=MICROSOFT),
    Rewrite(("QAttention",), from_bytes, domain=MICROSOFT),
    Rewrite(("MultiHeadAttention",), multi_head, domain=MICROSOFT),
)
