"""DeformConv: pixels are gathered where the offsets say, between four of them, and multiplied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def deform_conv(site: Site) -> Sequence[str]:
    import numpy as np

    x, weight, offset, bias, mask = (site.input(i) for i in range(5))
    batch, channels, *size = site.shape(x)
    outputs, _, *kernel = site.shape(weight)
    out, dtype = site.shape(offset)[2:], site.dtype(x)
    groups, parts = site.attribute("group", 1), site.attribute("offset_group", 1)
    strides, dilations = (site.attribute(n) or [1, 1] for n in ("strides", "dilations"))
    pads = site.attribute("pads") or [0, 0, 0, 0]
    taps, pixels = math.prod(kernel), math.prod(out)
    # Rows and columns of every tap of every output, [batch, parts, taps, pixels].
    moved = site.reshape(offset, (batch, parts, taps, 2, pixels))
    places = []
    for axis in range(2):
        first = np.arange(out[axis]) * strides[axis] - pads[axis]
        tap = np.arange(kernel[axis]) * dilations[axis]
        grid = np.zeros((*kernel, *out), dtype)
        spread = [1, 1, 1, 1]
        spread[2 + axis] = out[axis]
        grid += first.reshape(spread)
        spread = [1, 1, 1, 1]
        spread[axis] = kernel[axis]
        grid += tap.reshape(spread)
        own = site.take(moved, axis, 3)
        places.append(site.emit("Add", own, grid.reshape(1, 1, taps, pixels).astype(dtype)))
    sampled = _sampled(site, x, places, parts)
    if mask:
        shown = site.reshape(mask, (batch, parts, taps, pixels, 1))
        sampled = site.emit("Mul", sampled, shown)
    # [batch, parts, taps, pixels, channels of a part] to one product for each group.
    columns = site.transpose(sampled, (0, 1, 4, 2, 3))
    columns = site.reshape(columns, (batch, groups, channels // groups * taps, pixels))
    rows = site.reshape(weight, (1, groups, outputs // groups, channels // groups * taps))
    y = site.reshape(site.emit("MatMul", rows, columns), (batch, outputs, *out))
    if bias:
        y = site.emit("Add", y, site.reshape(bias, (1, outputs, 1, 1)))
    return [y]


def _sampled(site: Site, x: str, places: Sequence[str], parts: int) -> str:
    """``x`` at ``places``, between the four pixels around each; zero outside of it."""
    import numpy as np

    (batch, channels, height, width), dtype = site.shape(x), site.dtype(x)
    own, area = channels // parts, height * width
    flat = site.reshape(x, (batch, parts, own, area))
    flat = site.reshape(site.transpose(flat, (0, 1, 3, 2)), (batch * parts * area, own))
    begins = np.arange(batch * parts, dtype=np.int64).reshape(batch, parts, 1, 1) * area
    floors = [site.emit("Floor", place) for place in places]
    shares = [site.emit("Sub", p, f) for p, f in zip(places, floors, strict=True)]
    total = ""
    for down in (0, 1):
        for right in (0, 1):
            share, index = _corner(site, floors, shares, (down, right), (height, width), dtype)
            pixel = site.emit("Gather", flat, site.emit("Add", index, begins), axis=0)
            part = site.emit("Mul", pixel, site.unsqueeze(share, 4))
            total = site.emit("Add", total, part) if total else part
    return total


def _corner(
    site: Site,
    floors: Sequence[str],
    shares: Sequence[str],
    corner: tuple[int, int],
    size: tuple[int, int],
    dtype: Any,
) -> tuple[str, str]:
    """How much one of the four pixels counts (nothing outside), and where it is."""
    import numpy as np

    one, zero = np.asarray(1, dtype), np.asarray(0, dtype)
    weight, index = "", ""
    for floor, share, step, extent in zip(floors, shares, corner, size, strict=True):
        place = site.emit("Add", floor, one) if step else floor
        part = share if step else site.emit("Sub", one, share)
        last = np.asarray(extent - 1, dtype)
        inside = site.emit(
            "And", site.emit("GreaterOrEqual", place, zero), site.emit("LessOrEqual", place, last)
        )
        part = site.emit("Where", inside, part, zero)
        bounded = site.cast(site.emit("Min", site.emit("Max", place, zero), last), np.int64)
        weight = site.emit("Mul", weight, part) if weight else part
        if index:
            bounded = site.emit("Add", site.emit("Mul", index, np.int64(extent)), bounded)
        index = bounded
    return weight, index


REWRITE = Rewrite(("DeformConv",), deform_conv)
