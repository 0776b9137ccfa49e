"""LinearAttention and CausalConvWithState: operators with a state that goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

LONGEST = 1024
"""Steps of a LinearAttention that are unrolled at most."""


def linear_attention(site: Site) -> Sequence[str]:
    """One step after the other, the state in float32 as the standard says."""
    import numpy as np

    query, key, value, past, decay, beta = (site.input(i) for i in range(6))
    heads, groups = site.attribute("q_num_heads"), site.attribute("kv_num_heads")
    batch, length, _ = site.shape(query)
    if length > LONGEST:
        raise Unknown(f"a LinearAttention of {length} steps: at most {LONGEST} can be compiled")
    wide, dtype = np.float32, site.dtype(query)
    depth, width = site.shape(query)[2] // heads, site.shape(value)[2] // groups
    rule = site.attribute("update_rule", "gated_delta")
    gated, corrected = "gated" in rule, "delta" in rule
    scale = site.attribute("scale", 0.0) or 1 / np.sqrt(depth)
    state_dtype = site.dtype(past) if past else dtype
    state = site.name(np.zeros((batch, groups, depth, width), wide))
    if past:
        state = site.cast(past, wide)

    def steps(name: str) -> list[str]:
        part = site.cast(name, wide)
        return [site.slice(part, i, i + 1, 1) for i in range(length)]

    queries, keys, values = steps(query), steps(key), steps(value)
    decays = steps(site.emit("Exp", site.cast(decay, wide))) if gated else []
    betas = steps(beta) if corrected else []
    rows = []
    for i in range(length):
        k = site.reshape(keys[i], (batch, groups, depth, 1))
        v = site.reshape(values[i], (batch, groups, 1, width))
        if gated:
            own = site.shape(decay)[2] // groups
            state = site.emit("Mul", state, site.reshape(decays[i], (batch, groups, own, 1)))
        flat = site.reshape(k, (batch, groups, 1, depth))
        if corrected:
            share = site.shape(beta)[2]
            v = site.emit("Sub", v, site.emit("MatMul", flat, state))
            v = site.emit("Mul", v, site.reshape(betas[i], (batch, share, 1, 1)))
        state = site.emit("Add", state, site.emit("Mul", k, v))
        # Heads that share a state are the rows of one product.
        q = site.reshape(queries[i], (batch, groups, heads // groups, depth))
        rows.append(site.reshape(site.emit("MatMul", q, state), (batch, 1, heads * width)))
    while len(rows) > 1:
        parts = [rows[i : i + 16] for i in range(0, len(rows), 16)]
        rows = [p[0] if len(p) == 1 else site.emit("Concat", *p, axis=1) for p in parts]
    output = site.emit("Mul", rows[0], np.asarray(scale, wide))
    return [site.cast(output, dtype), site.cast(state, state_dtype)]


def causal_convolution(site: Site) -> Sequence[str]:
    """A depthwise convolution of what was there before and the input, side by side."""
    import numpy as np

    x, weight, bias, past = (site.input(i) for i in range(4))
    (batch, channels, length), taps = site.shape(x), site.shape(weight)[2]
    dtype = site.dtype(x)
    before = past or site.name(np.zeros((batch, channels, taps - 1), dtype))
    padded = site.emit("Concat", before, x, axis=2) if taps > 1 else x
    inputs = [padded, weight, bias] if bias else [padded, weight]
    y = site.emit("Conv", *inputs, group=channels, kernel_shape=[taps])
    if site.attribute("activation", "none") in ("silu", "swish"):
        inner = site.cast(y, np.float32)
        y = site.cast(site.emit("Mul", inner, site.emit("Sigmoid", inner)), dtype)
    return [y, site.slice(padded, length, length + taps - 1, 2)]


REWRITES = (
    Rewrite(("LinearAttention",), linear_attention),
    Rewrite(("CausalConvWithState",), causal_convolution),
)
