"""Attention of opsets 23 and later: caches, grouped heads, every mask, window and extra output.

A row whose keys are all masked gives zeros, as the standard says, and no NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site

BIASED, PROBABILITIES = 2, 3
"""What the fourth output holds: scores with the masks added, or the result of the softmax."""


def attention(site: Site) -> Sequence[str]:
    import numpy as np
    from onnx import helper

    q, k, v, mask, past_key, past_value, filled = (site.input(i) for i in range(7))
    dtype = site.dtype(q)
    flat = len(site.shape(q)) == 3
    q, heads = _split(site, q, site.attribute("q_num_heads", 0))
    k, groups = _split(site, k, site.attribute("kv_num_heads", 0))
    v, _ = _split(site, v, site.attribute("kv_num_heads", 0))
    batch, _, rows, width = _shape4(site, site.input(0), heads)
    keys, depth = _shape4(site, site.input(1), groups)[2], _shape4(site, site.input(2), groups)[3]
    past = site.shape(past_key)[2] if past_key else 0
    if past_key:
        k = site.emit("Concat", past_key, k, axis=2)
    if past_value:
        v = site.emit("Concat", past_value, v, axis=2)
    keys += past
    present_key, present_value = k, v
    scale = site.attribute("scale") or 1 / np.sqrt(width)
    root = np.asarray(np.sqrt(scale), dtype)
    # Heads that share keys are one axis: nothing is repeated.
    shared = heads // groups
    queries = site.reshape(site.emit("Mul", q, root), (batch, groups, shared * rows, width))
    product = site.emit("MatMul", queries, site.transpose(site.emit("Mul", k, root), (0, 1, 3, 2)))
    scores = site.reshape(product, (batch, heads, rows, keys))
    cap = site.attribute("softcap", 0.0)
    if cap:
        bound = np.asarray(cap, dtype)
        scores = site.emit("Mul", site.emit("Tanh", site.emit("Div", scores, bound)), bound)
    allowed, bias = _masks(site, (batch, heads, rows, keys), mask, filled, past, dtype)
    biased = site.emit("Add", scores, bias) if bias else scores
    if allowed:
        biased = site.emit("Where", allowed, biased, np.asarray(-np.inf, dtype))
    precision = site.attribute("softmax_precision", 0)
    wide = helper.tensor_dtype_to_np_dtype(precision) if precision else dtype
    inner = site.cast(biased, wide) if wide != dtype else biased
    masked = bool(allowed or bias)
    probabilities = _softmax(site, inner, wide, guarded=masked)
    if wide != dtype:
        probabilities = site.cast(probabilities, dtype)
    grouped = site.reshape(probabilities, (batch, groups, shared * rows, keys))
    y = site.reshape(site.emit("MatMul", grouped, v), (batch, heads, rows, depth))
    if flat:
        y = site.reshape(site.transpose(y, (0, 2, 1, 3)), (batch, rows, heads * depth))
    mode = site.attribute("qk_matmul_output_mode", 0)
    plain = site.reshape(product, (batch, heads, rows, keys))
    shown = {0: plain, 1: scores, BIASED: biased, PROBABILITIES: probabilities}
    return [y, present_key, present_value, shown[mode]]


def _shape4(site: Site, name: str, heads: int) -> tuple[int, int, int, int]:
    """Batch, heads, length and width of an input of three or four axes."""
    shape = site.shape(name)
    if len(shape) == 3:
        return shape[0], heads, shape[1], shape[2] // heads
    return shape[0], shape[1], shape[2], shape[3]


def _split(site: Site, value: str, heads: int) -> tuple[str, int]:
    """``value`` as [batch, heads, length, width], and how many heads it has."""
    shape = site.shape(value)
    if len(shape) == 4:
        return value, shape[1]
    parted = site.reshape(value, (shape[0], shape[1], heads, shape[2] // heads))
    return site.transpose(parted, (0, 2, 1, 3)), heads


def _masks(
    site: Site, shape: tuple[int, int, int, int], mask: str, filled: str, past: int, dtype: Any
) -> tuple[str, str]:
    """Which keys each row may see (broadcast to ``shape``), and what is added to the scores."""
    import numpy as np

    batch, _, rows, keys = shape
    conditions: list[str] = []
    bias = ""
    if mask:
        given, kind = site.shape(mask), site.dtype(mask)
        missing = keys - given[-1] if given[-1] != 1 or keys == 1 else 0
        if kind.kind == "b":
            if missing > 0:
                rest = np.zeros((*given[:-1], missing), np.bool_)
                mask = site.cast(
                    site.emit("Concat", site.cast(mask, np.int32), rest.astype(np.int32),
                              axis=len(given) - 1),
                    np.bool_,
                )  # fmt: skip
            conditions.append(mask)
        else:
            if missing > 0:
                rest = np.full((*given[:-1], missing), -np.inf, kind)
                mask = site.emit("Concat", mask, rest, axis=len(given) - 1)
            bias = mask if kind == dtype else site.cast(mask, dtype)
    row, key = np.arange(rows)[:, None], np.arange(keys)[None, :]
    left, right = site.attribute("left_window_size", -1), site.attribute("right_window_size", -1)
    causal = site.attribute("is_causal", 0)
    if causal:
        right = 0 if right < 0 else min(right, 0)
    if filled and not site.input(4):
        # The rows end where each cache does, which only the running model knows.
        offset = site.emit("Sub", site.reshape(filled, (batch, 1, 1, 1)), np.int64(rows))
        ahead = site.emit("Sub", (key - row).astype(np.int64)[None, None], offset)
        if right >= 0:
            conditions.append(site.emit("LessOrEqual", ahead, np.int64(right)))
        if left >= 0:
            conditions.append(site.emit("GreaterOrEqual", ahead, np.int64(-left)))
    elif left >= 0 or right >= 0:
        ahead_of = key - row - past
        seen = np.ones((rows, keys), np.bool_)
        if right >= 0:
            seen &= ahead_of <= right
        if left >= 0:
            seen &= -ahead_of <= left
        conditions.append(site.name(seen))
    if filled:
        limit = site.reshape(filled, (batch, 1, 1, 1))
        conditions.append(site.emit("Less", site.name(key.astype(np.int64)[None, None]), limit))
    allowed = ""
    for condition in conditions:
        allowed = site.emit("And", allowed, condition) if allowed else condition
    return allowed, bias


def _softmax(site: Site, scores: str, dtype: Any, guarded: bool) -> str:
    """Of the last axis; with ``guarded``, zeros for a row of minus infinities."""
    import numpy as np

    if not guarded:
        return site.emit("Softmax", scores, axis=-1)
    lowest = np.asarray(np.finfo(dtype).min, dtype)
    # The largest of each row is left as it is, unless it is minus infinity.
    bounded = site.emit("Max", scores, lowest)
    probabilities = site.emit("Softmax", bounded, axis=-1)
    seen = site.emit("Greater", scores, lowest)
    return site.emit("Where", seen, probabilities, np.asarray(0, dtype))


REWRITE = Rewrite(("Attention",), attention)
