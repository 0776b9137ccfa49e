"""Norms with outputs, axes or modes that TVM's importer leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def _mean(site: Site, value: str, count: int, axes: Sequence[int]) -> str:
    """The mean over the last axes, from ``axes[0]`` on, kept as axes of one."""
    import numpy as np

    shape = site.shape(site.input(0))
    outer = [1 if i in axes else n for i, n in enumerate(shape)]
    rows = int(np.prod([n for i, n in enumerate(shape) if i not in axes]))
    flat = site.reshape(value, (rows, count))
    weights = np.full((count, 1), 1 / count, site.dtype(site.input(0)))
    if weights.dtype.itemsize < 4:
        flat, weights = site.cast(flat, np.float32), np.full((count, 1), 1 / count, np.float32)
    return site.reshape(site.emit("MatMul", flat, weights), outer)


def layer_normalization(site: Site) -> Sequence[str]:
    """With the mean and the inverse deviation as outputs, over any number of last axes."""
    import numpy as np

    x, scale, bias = (site.input(i) for i in range(3))
    shape, dtype = site.shape(x), site.dtype(x)
    axes = list(range(site.attribute("axis", -1) % len(shape), len(shape)))
    count = int(np.prod([shape[i] for i in axes]))
    wide = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    value = site.cast(x, wide)
    mean = _mean(site, value, count, axes)
    centred = site.emit("Sub", value, mean)
    variance = _mean(site, site.emit("Mul", centred, centred), count, axes)
    epsilon = np.asarray(site.attribute("epsilon", 1e-5), wide)
    deviation = site.emit("Sqrt", site.emit("Add", variance, epsilon))
    inverse = site.emit("Div", np.asarray(1, wide), deviation)
    y = site.emit("Mul", site.cast(site.emit("Mul", centred, inverse), dtype), scale)
    if bias:
        y = site.emit("Add", y, bias)
    return [y, mean, inverse]


def rms_normalization(site: Site) -> Sequence[str]:
    import numpy as np

    x, scale = site.input(0), site.input(1)
    shape, dtype = site.shape(x), site.dtype(x)
    axes = list(range(site.attribute("axis", -1) % len(shape), len(shape)))
    wide = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    value = site.cast(x, wide)
    count = int(np.prod([shape[i] for i in axes]))
    square = _mean(site, site.emit("Mul", value, value), count, axes)
    epsilon = np.asarray(site.attribute("epsilon", 1e-5), wide)
    root = site.emit("Sqrt", site.emit("Add", square, epsilon))
    return [site.emit("Mul", site.cast(site.emit("Div", value, root), dtype), scale)]


def batch_normalization(site: Site) -> Sequence[str] | None:
    """In training mode: by the statistics of the batch, which move the running ones."""
    import numpy as np

    if not site.attribute("training_mode", 0):
        return None
    x, scale, bias, mean, variance = (site.input(i) for i in range(5))
    shape, dtype = site.shape(x), site.dtype(x)
    channels, rest = shape[1], int(np.prod(shape)) // shape[1]
    order = [1, 0, *range(2, len(shape))]
    rows = site.reshape(site.transpose(x, order), (channels, rest))
    weights = np.full((rest, 1), 1 / rest, dtype)
    own = site.emit("MatMul", rows, weights)
    centred = site.emit("Sub", rows, own)
    spread = site.emit("MatMul", site.emit("Mul", centred, centred), weights)
    epsilon = np.asarray(site.attribute("epsilon", 1e-5), dtype)
    inverse = site.emit("Sqrt", site.emit("Add", spread, epsilon))
    y = site.emit("Div", centred, inverse)
    y = site.emit("Mul", y, site.reshape(scale, (channels, 1)))
    y = site.emit("Add", y, site.reshape(bias, (channels, 1)))
    y = site.transpose(site.reshape(y, [shape[i] for i in order]), order)
    share = site.attribute("momentum", 0.9)

    def moved(old: str, new: str) -> str:
        part = site.emit("Mul", site.reshape(new, (channels,)), np.asarray(1 - share, dtype))
        return site.emit("Add", site.emit("Mul", old, np.asarray(share, dtype)), part)

    return [y, moved(mean, own), moved(variance, spread)]


def lp_normalization(site: Site) -> Sequence[str]:
    """Zero where the norm is."""
    import numpy as np

    x, shape, dtype = site.input(0), site.shape(site.input(0)), site.dtype(site.input(0))
    axis = site.attribute("axis", -1) % len(shape)
    order = [i for i in range(len(shape)) if i != axis] + [axis]
    first = site.attribute("p", 2) == 1
    powers = site.emit("Abs", x) if first else site.emit("Mul", x, x)
    total = site.emit("MatMul", site.transpose(powers, order), np.ones((shape[axis], 1), dtype))
    back = sorted(range(len(shape)), key=order.__getitem__)
    norm = site.transpose(total, back)
    norm = norm if first else site.emit("Sqrt", norm)
    none = site.emit("Equal", norm, np.asarray(0, dtype))
    safe = site.emit("Where", none, np.asarray(1, dtype), norm)
    return [site.emit("Div", x, safe)]


REWRITES = (
    Rewrite(("LayerNormalization",), layer_normalization, known=True),
    Rewrite(("LpNormalization",), lp_normalization),
    Rewrite(("RMSNormalization",), rms_normalization, known=True),
    Rewrite(("BatchNormalization",), batch_normalization, known=True),
)
