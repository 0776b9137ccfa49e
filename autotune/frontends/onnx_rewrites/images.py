"""Windows of images: MaxPool with indices, Col2Im, SpaceToDepth, transposed convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown


def _windows(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    begin: Sequence[int],
    out: Sequence[int],
) -> Any:
    """For each output place and tap: the place in the flat image, -1 in the padding."""
    import numpy as np

    grid = np.full((*out, *kernel), 0, np.int64)
    outside = np.zeros(grid.shape, np.bool_)
    rank = len(size)
    for axis in range(rank):
        place = np.arange(out[axis])[:, None] * strides[axis] - begin[axis]
        place = place + np.arange(kernel[axis])[None] * dilations[axis]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = out[axis], kernel[axis]
        place = place.reshape(shape)
        outside |= (place < 0) | (place >= size[axis])
        grid = grid * size[axis] + place
    flat = np.where(outside, -1, grid)
    return flat.reshape(math.prod(out), math.prod(kernel))


def max_pool(site: Site) -> Sequence[str] | None:
    """With the place of each maximum as a second output: windows are gathered."""
    import numpy as np

    if len(site.node.output) < 2 or not site.node.output[1]:
        return None
    x, shape, dtype = site.input(0), site.shape(site.input(0)), site.dtype(site.input(0))
    size, kernel = shape[2:], site.attribute("kernel_shape")
    rank = len(size)
    strides = site.attribute("strides") or [1] * rank
    dilations = site.attribute("dilations") or [1] * rank
    pads = site.attribute("pads") or [0] * (2 * rank)
    if site.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        pads = _same(size, kernel, strides, dilations, site.attribute("auto_pad"))
    rounded = math.ceil if site.attribute("ceil_mode", 0) else math.floor
    out = []
    for i in range(rank):
        reach = size[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1
        count = rounded(reach / strides[i]) + 1
        # A window that begins in the padding at the end does not count.
        if rounded is math.ceil and (count - 1) * strides[i] >= size[i] + pads[i]:
            count -= 1
        out.append(count)
    places = _windows(size, kernel, strides, dilations, pads[:rank], out)
    flat = site.reshape(x, (shape[0] * shape[1], math.prod(size)))
    picked = site.take(flat, np.where(places < 0, 0, places), 1)
    lowest = np.asarray(np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min, dtype)
    if (places < 0).any():
        picked = site.emit("Where", site.name(places[None] >= 0), picked, lowest)
    values = site.reduce("ReduceMax", picked, 2)
    which = site.emit("ArgMax", picked, axis=2, keepdims=1)
    taps = np.arange(places.shape[1], dtype=np.int64)
    chosen = site.emit("Equal", which, taps[None, None])
    named = _column_major(places, size) if site.attribute("storage_order", 0) else places
    index = site.emit("Where", chosen, named[None], np.int64(0))
    # A sum of one number and zeros; as a product, which needs no axes as an input or attribute.
    index = site.emit("MatMul", index, np.ones((places.shape[1], 1), np.int64))
    first = np.arange(shape[0] * shape[1], dtype=np.int64)[:, None, None] * math.prod(size)
    index = site.emit("Add", index, first)
    return [site.reshape(value, (*shape[:2], *out)) for value in (values, index)]


def _same(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    how: str,
) -> list[int]:  # fmt: skip
    begin, end = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        begin.append(small if how == "SAME_UPPER" else large)
        end.append(large if how == "SAME_UPPER" else small)
    return begin + end


def _column_major(places: Any, size: Sequence[int]) -> Any:
    import numpy as np

    order = np.arange(math.prod(size)).reshape(size[::-1]).transpose().reshape(-1)
    return np.where(places < 0, places, order[np.where(places < 0, 0, places)])


def col2im(site: Site) -> Sequence[str]:
    """Each pixel is the sum of the columns' entries that fall on it: they are gathered."""
    import numpy as np

    x, dtype = site.input(0), site.dtype(site.input(0))
    size = [int(v) for v in site.constant(site.input(1))]
    kernel = [int(v) for v in site.constant(site.input(2))]
    rank = len(size)
    strides = site.attribute("strides") or [1] * rank
    dilations = site.attribute("dilations") or [1] * rank
    pads = site.attribute("pads") or [0] * (2 * rank)
    batch, wide, count = site.shape(x)
    taps = math.prod(kernel)
    out = [
        (size[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    places = _windows(size, kernel, strides, dilations, pads[:rank], out)
    entries: list[list[int]] = [[] for _ in range(math.prod(size))]
    for (column, tap), place in np.ndenumerate(places):
        if place >= 0:
            entries[int(place)].append(tap * count + column)
    most = max(len(found) for found in entries)
    nothing = taps * count
    table = np.full((len(entries), most), nothing, np.int64)
    for row, found in zip(table, entries, strict=True):
        row[: len(found)] = found
    flat = site.reshape(x, (batch * (wide // taps), taps * count))
    zeros = np.zeros((batch * (wide // taps), 1), dtype)
    picked = site.take(site.emit("Concat", flat, zeros, axis=1), table, 1)
    total = site.emit("MatMul", picked, np.ones((most, 1), dtype))
    return [site.reshape(total, (batch, wide // taps, *size))]


def space_to_depth(site: Site) -> Sequence[str]:
    x, block = site.input(0), site.attribute("blocksize")
    batch, channels, height, width = site.shape(x)
    rows, columns = height // block, width // block
    value = site.reshape(x, (batch, channels, rows, block, columns, block))
    crd = site.attribute("mode", "DCR") == "CRD"
    value = site.transpose(value, (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4))
    return [site.reshape(value, (batch, channels * block * block, rows, columns))]


def conv_transpose(site: Site) -> Sequence[str] | None:
    """With an output shape, or one that follows from ``auto_pad``: the padding is computed."""
    wanted = site.attribute("output_shape")
    auto = site.attribute("auto_pad", "NOTSET")
    if not wanted and auto == "NOTSET":
        return None
    size, weight = site.shape(site.input(0))[2:], site.shape(site.input(1))
    rank = len(size)
    kernel = site.attribute("kernel_shape") or list(weight[2:])
    strides = site.attribute("strides") or [1] * rank
    dilations = site.attribute("dilations") or [1] * rank
    extra = site.attribute("output_padding") or [0] * rank
    begin, end = [], []
    for i in range(rank):
        goal = wanted[-rank + i] if wanted else size[i] * strides[i]
        full = strides[i] * (size[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        total = 0 if auto == "VALID" and not wanted else full - goal
        if total < 0:
            extra[i] -= total
            total = 0
        if extra[i] >= max(strides[i], dilations[i]):
            raise Unknown("a ConvTranspose whose output is larger than its input reaches")
        small, large = total // 2, total - total // 2
        begin.append(small if auto == "SAME_UPPER" else large)
        end.append(large if auto == "SAME_UPPER" else small)
    inputs = [name for name in site.node.input]
    made = site.emit(
        "ConvTranspose", *inputs, kernel_shape=kernel, strides=strides, dilations=dilations,
        group=site.attribute("group", 1), pads=begin + end, output_padding=extra,
    )  # fmt: skip
    return [made]


def reduced_booleans(site: Site) -> Sequence[str] | None:
    """ReduceMax and ReduceMin of booleans, as of numbers."""
    import numpy as np

    if site.dtype(site.input(0)).kind != "b":
        return None
    inputs = [site.cast(site.input(0), np.int32), *site.node.input[1:]]
    kept = site.attributes("axes", "keepdims", "noop_with_empty_axes")
    return [site.cast(site.emit(site.operator, *inputs, **kept), np.bool_)]


def max_unpool(site: Site) -> Sequence[str]:
    """Each value goes to its place in the flat result, which is zero elsewhere."""
    import numpy as np

    x, places = site.input(0), site.input(1)
    shape, kernel = site.shape(x), site.attribute("kernel_shape")
    rank = len(kernel)
    strides = site.attribute("strides") or [1] * rank
    pads = site.attribute("pads") or [0] * (2 * rank)
    own = [
        (shape[2 + i] - 1) * strides[i] - pads[i] - pads[rank + i] + kernel[i] for i in range(rank)
    ]
    size = [*shape[:2], *own]
    goal = [int(v) for v in site.constant(site.input(2))] if site.input(2) else size
    empty = np.zeros(math.prod(size), site.dtype(x))
    flat = site.emit(
        "ScatterElements", empty, site.reshape(places, (-1,)), site.reshape(x, (-1,)), axis=0
    )
    value = site.reshape(flat, size)
    for axis, (now, then) in enumerate(zip(size, goal, strict=True)):
        if then > now:
            rest = [then - now if i == axis else (goal[i] if i < axis else size[i])
                    for i in range(len(size))]  # fmt: skip
            value = site.emit("Concat", value, np.zeros(rest, site.dtype(x)), axis=axis)
    return [value]


def non_max_suppression(site: Site) -> Sequence[str] | None:
    """A box goes where it overlaps by more than the threshold, TVM's also where by as much."""
    import numpy as np

    threshold = site.input(3)
    if not threshold or site.constant(threshold).reshape(-1)[0] <= 0:
        return None
    next_up = np.nextafter(site.constant(threshold), np.float32(np.inf))
    inputs = [*site.node.input]
    inputs[3] = site.name(next_up.astype(np.float32))
    kept = {"center_point_box": site.attribute("center_point_box", 0)}
    return [site.emit("NonMaxSuppression", *inputs, **kept)]


REWRITES = (
    Rewrite(("NonMaxSuppression",), non_max_suppression, known=True, always=True),
    Rewrite(("ReduceMax", "ReduceMin"), reduced_booleans, known=True),
    Rewrite(("Col2Im",), col2im),
    Rewrite(("MaxPool",), max_pool, known=True),
    Rewrite(("MaxUnpool",), max_unpool, known=True),
    Rewrite(("SpaceToDepth",), space_to_depth, known=True),
    Rewrite(("ConvTranspose",), conv_transpose, known=True),
)
