"""ReverseSequence and TensorScatter: rows picked by indices that are computed."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def reverse_sequence(site: Site) -> Sequence[str]:
    import numpy as np

    x, lengths, shape = site.input(0), site.input(1), site.shape(site.input(0))
    time, batch = site.attribute("time_axis", 0), site.attribute("batch_axis", 1)
    steps, rows = shape[time], shape[batch]
    order = [batch, time, *(i for i in range(len(shape)) if i not in (batch, time))]
    value = site.reshape(site.transpose(x, order), (rows * steps, *(shape[i] for i in order[2:])))
    limits = site.reshape(site.cast(lengths, np.int64), (rows, 1))
    step = np.arange(steps, dtype=np.int64)[None]
    last = site.emit("Sub", limits, np.int64(1))
    places = site.emit(
        "Where", site.emit("Less", site.name(step), limits), site.emit("Sub", last, step), step
    )
    flat = site.emit("Add", places, np.arange(rows, dtype=np.int64)[:, None] * steps)
    value = site.emit("Gather", value, site.reshape(flat, (rows * steps,)), axis=0)
    value = site.reshape(value, [shape[i] for i in order])
    return [site.transpose(value, sorted(range(len(shape)), key=order.__getitem__))]


def tensor_scatter(site: Site) -> Sequence[str]:
    """Each place of the cache takes the row that is written there, or keeps its own."""
    import numpy as np

    cache, update, begin = (site.input(i) for i in range(3))
    shape, axis = site.shape(cache), site.attribute("axis", -2)
    axis %= len(shape)
    batch, places, rows = shape[0], shape[axis], site.shape(update)[axis]
    order = [0, axis, *(i for i in range(1, len(shape)) if i != axis)]
    rest = [shape[i] for i in order[2:]]
    starts = site.name(np.zeros((batch, 1), np.int64))
    if begin:
        starts = site.reshape(site.cast(begin, np.int64), (batch, 1))
    row = site.emit("Sub", np.arange(places, dtype=np.int64)[None], starts)
    if site.attribute("mode", "linear") == "circular":
        row = site.emit("Mod", row, np.int64(places))
    first, last = np.int64(0), np.int64(rows - 1)
    inside = site.emit(
        "And", site.emit("GreaterOrEqual", row, first), site.emit("LessOrEqual", row, last)
    )
    bounded = site.emit("Min", site.emit("Max", row, first), last)
    flat = site.emit("Add", bounded, np.arange(batch, dtype=np.int64)[:, None] * rows)
    value = site.reshape(site.transpose(update, order), (batch * rows, *rest))
    value = site.emit("Gather", value, site.reshape(flat, (batch * places,)), axis=0)
    value = site.reshape(value, (batch, places, *rest))
    value = site.transpose(value, sorted(range(len(shape)), key=order.__getitem__))
    mask = [places if i == axis else batch if i == 0 else 1 for i in range(len(shape))]
    return [site.emit("Where", site.reshape(inside, mask), value, cache)]


REWRITES = (
    Rewrite(("ReverseSequence",), reverse_sequence),
    Rewrite(("TensorScatter",), tensor_scatter),
)
