"""DFT and STFT as products with constant matrices of sines and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site


def _waves(old: int, new: int, length: int, sign: int) -> tuple[Any, Any]:
    """Cosines and sines of ``sign * 2 pi n k / length``, [old, new]."""
    import numpy as np

    # The product is reduced first: large angles lose their digits.
    turns = np.outer(np.arange(old), np.arange(new)) % length
    angles = sign * 2 * np.pi * turns / length
    return np.cos(angles), np.sin(angles)


def dft(site: Site) -> Sequence[str]:
    import numpy as np

    x, shape, dtype = site.input(0), site.shape(site.input(0)), site.dtype(site.input(0))
    rank = len(shape)
    if site.facts.opset < 20:
        axis = site.attribute("axis", 1)
    else:
        axis = int(site.constant(site.input(2))) if site.input(2) else -2
    axis %= rank
    inverse, onesided = site.attribute("inverse", 0), site.attribute("onesided", 0)
    given = shape[axis]
    length = 2 * (given - 1) if inverse and onesided else given
    if site.input(1):
        length = int(site.constant(site.input(1)).reshape(()))
    used = min(given, length // 2 + 1 if inverse and onesided else length)
    value = site.slice(x, 0, used, axis) if used < given else x
    # The transformed axis last, the parts of a complex number before it.
    order = [i for i in range(rank - 1) if i != axis] + [rank - 1, axis]
    value = site.transpose(value, order)
    new = length // 2 + 1 if onesided and not inverse else length
    cosines, sines = _waves(used, new, length, 1 if inverse else -1)
    if inverse:
        cosines, sines = cosines / length, sines / length
    if inverse and onesided:
        # Both halves of the spectrum are there in what is given of one.
        twice = np.full((used, 1), 2.0)
        twice[0] = 1
        if length % 2 == 0 and used == length // 2 + 1:
            twice[-1] = 1
        cosines, sines = cosines * twice, sines * twice
    parts = shape[-1]
    # From [.., parts, used] to [.., out, new]: as one product over parts and points.
    real = np.concatenate([cosines, -sines][:parts])
    imaginary = np.concatenate([sines, cosines][:parts])
    matrix = real if inverse and onesided else np.concatenate([real, imaginary], axis=1)
    outer = [shape[i] for i in order[:-2]]
    out = 1 if inverse and onesided else 2
    value = site.reshape(value, (int(np.prod(outer)), parts * used))
    value = site.emit("MatMul", value, matrix.astype(dtype))
    value = site.reshape(value, (*outer, out, new))
    back = sorted(range(rank), key=order.__getitem__)
    return [site.transpose(value, back)]


def stft(site: Site) -> Sequence[str]:
    import numpy as np

    signal, step, window, size = (site.input(i) for i in range(4))
    shape, dtype = site.shape(signal), site.dtype(signal)
    batch, total = shape[0], shape[1]
    parts = shape[2] if len(shape) == 3 else 1
    hop = int(site.constant(step).reshape(()))
    length = site.shape(window)[0] if window else 0
    length = int(site.constant(size).reshape(())) if size else length
    frames = (total - length) // hop + 1
    new = length // 2 + 1 if site.attribute("onesided", 1) else length
    cosines, sines = _waves(length, new, length, -1)
    real = np.concatenate([cosines, -sines][:parts])
    imaginary = np.concatenate([sines, cosines][:parts])
    # Each frame is gathered; parts are one after the other.
    value = site.transpose(site.reshape(signal, (batch, total, parts)), (0, 2, 1))
    places = np.arange(frames)[:, None] * hop + np.arange(length)[None, :]
    value = site.take(value, places, 2)  # [batch, parts, frames, length]
    if window:
        known = site.shape(window)[0]
        shown = site.slice(window, 0, length, 0) if known > length else window
        value = site.emit("Mul", value, shown)
    value = site.reshape(site.transpose(value, (0, 2, 1, 3)), (batch * frames, parts * length))
    matrix = np.concatenate([real, imaginary], axis=1).astype(dtype)
    value = site.reshape(site.emit("MatMul", value, matrix), (batch, frames, 2, new))
    return [site.transpose(value, (0, 1, 3, 2))]


REWRITES = (Rewrite(("DFT",), dft), Rewrite(("STFT",), stft))
