"""RotaryEmbedding of com.microsoft: pairs of numbers turned by angles that grow with the place."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown


def rotary(site: Site) -> Sequence[str]:
    import numpy as np

    x, places, cosines, sines = (site.input(i) for i in range(4))
    if site.attribute("is_packed_batching", 0) or site.attribute("scale", 1.0) != 1.0:
        raise Unknown("RotaryEmbedding of packed batches, or scaled")
    shape, half = site.shape(x), site.shape(cosines)[1]
    turned = site.attribute("rotary_embedding_dim", 0) or 2 * half
    heads = site.attribute("num_heads", 0)
    if len(shape) == 4:
        batch, heads, length, width = shape
        values = x
    else:
        batch, length, hidden = shape
        width = hidden // heads if heads else 2 * half
        heads = hidden // width
        split = site.reshape(x, (batch, length, heads, width))
        values = site.transpose(split, (0, 2, 1, 3))
    if site.shape(places) == (1,):
        places = site.emit("Add", places, np.arange(length, dtype=np.int64)[None])
    angles = [
        site.unsqueeze(site.emit("Gather", table, places, axis=0), 1) for table in (cosines, sines)
    ]
    rest = ""
    if turned < width:
        rest = site.slice(values, turned, width, 3)
        values = site.slice(values, 0, turned, 3)
    if site.attribute("interleaved", 0):
        first, second = (site.slice(values, i, turned, 3, 2) for i in (0, 1))
    else:
        first, second = site.slice(values, 0, half, 3), site.slice(values, half, turned, 3)
    cosine, sine = angles
    real = site.emit("Sub", site.emit("Mul", first, cosine), site.emit("Mul", second, sine))
    other = site.emit("Add", site.emit("Mul", first, sine), site.emit("Mul", second, cosine))
    if site.attribute("interleaved", 0):
        pairs = [site.unsqueeze(part, 4) for part in (real, other)]
        joined = site.emit("Concat", *pairs, axis=4)
        made = site.reshape(joined, (batch, heads, length, turned))
    else:
        made = site.emit("Concat", real, other, axis=3)
    if rest:
        made = site.emit("Concat", made, rest, axis=3)
    if len(shape) == 4:
        return [made]
    return [site.reshape(site.transpose(made, (0, 2, 1, 3)), shape)]


REWRITES = (Rewrite(("RotaryEmbedding",), rotary, domain=MICROSOFT),)
