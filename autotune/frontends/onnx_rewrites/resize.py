"""Resize in all of its modes: each axis is a product with a constant matrix.

Interpolation is linear in the data and goes axis by axis. Where an output takes one input each
(nearest), the axis is gathered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.frontends.onnx_rewrites.base import Refused, Rewrite, Site


@dataclass(frozen=True)
class Axis:
    """How one axis is resized. ``crop`` is the part of it that is taken, as shares."""

    old: int
    new: int
    scale: float
    crop: tuple[float, float] = (0.0, 1.0)


def resize(site: Site) -> Sequence[str] | None:
    import numpy as np

    x, shape, dtype = site.input(0), site.shape(site.input(0)), site.dtype(site.input(0))
    if dtype.kind not in "fiu":
        return None
    mode = site.attribute("mode", "nearest")
    wide = dtype if dtype.kind == "f" or mode == "nearest" else np.dtype(np.float32)
    value = x if wide == dtype else site.cast(x, wide)
    for index, axis in _axes(site, shape).items():
        if mode == "nearest" and not _crops(site):
            value = site.take(value, _nearest(site, axis), index)
            continue
        matrix, outside = _matrix(site, axis, mode)
        value = _product(site, value, matrix.astype(wide), index, len(shape))
        if outside.any():
            extra = np.where(outside, site.attribute("extrapolation_value", 0.0), 0).astype(wide)
            extra = extra.reshape([-1 if i == index else 1 for i in range(len(shape))])
            value = site.emit("Add", value, extra)
    if wide != dtype:
        from autotune.frontends.onnx_rewrites.quantised import limits_of

        low, high = (np.asarray(bound, wide) for bound in limits_of(dtype))
        value = site.cast(site.emit("Min", site.emit("Max", value, low), high), dtype)
    return [value]


def disputed(site: Site) -> None:
    """The standard aligns the corners of the exact size, ONNX Runtime those of the whole number."""
    aligned = site.attribute("coordinate_transformation_mode") == "align_corners"
    if not aligned or site.attribute("mode", "nearest") == "nearest":
        return
    if any(abs(axis.scale * axis.old - axis.new) > 1e-6 * axis.new for axis in _axes(
        site, site.shape(site.input(0))).values()):  # fmt: skip
        raise Refused(
            "a Resize with align_corners and scales that lead to no whole number of pixels, of "
            "which the standard and ONNX Runtime make different results: give it sizes"
        )


def upsample(site: Site) -> Sequence[str]:
    """The operator of opsets 7 to 9, whose coordinates are asymmetric."""
    value, shape = site.input(0), site.shape(site.input(0))
    scales = site.attribute("scales")
    if scales is None:
        scales = site.constant(site.input(1)).tolist()
    for index, (old, scale) in enumerate(zip(shape, scales, strict=True)):
        axis = Axis(old, math.floor(old * scale), scale)
        if axis.new == old and scale == 1:
            continue
        xs = [i / scale for i in range(axis.new)]
        if site.attribute("mode", "nearest") == "nearest":
            value = site.take(value, [min(int(x), old - 1) for x in xs], index)
        else:
            matrix = _rows(xs, [_taps(x, "linear", 1.0, False, 0.0) for x in xs], old, False)
            dtype = site.dtype(site.input(0))
            value = _product(site, value, matrix.astype(dtype), index, len(shape))
    return [value]


def _product(site: Site, value: str, matrix: Any, axis: int, rank: int) -> str:
    """``matrix`` [new, old] applied along ``axis``."""
    if axis == rank - 1:
        return site.emit("MatMul", value, matrix.T.copy())
    order = [i for i in range(rank) if i != axis] + [axis]
    back = sorted(range(rank), key=order.__getitem__)
    return site.transpose(site.emit("MatMul", site.transpose(value, order), matrix.T.copy()), back)


def _crops(site: Site) -> bool:
    return bool(site.attribute("coordinate_transformation_mode") == "tf_crop_and_resize")


def _axes(site: Site, shape: tuple[int, ...]) -> dict[int, Axis]:
    """The axes that are resized."""
    chosen = [a % len(shape) for a in site.attribute("axes") or range(len(shape))]
    # Opset 10 has no region of interest: its second input are the scales.
    names = [site.input(i) for i in range(1, 4)] if site.facts.opset > 10 else ["", site.input(1)]
    roi, scales, sizes = [*names, "", "", ""][:3]
    crops = [(0.0, 1.0)] * len(chosen)
    if _crops(site):
        numbers = [float(v) for v in site.constant(roi)]
        crops = list(zip(numbers[: len(chosen)], numbers[len(chosen) :], strict=True))
    old = [shape[a] for a in chosen]
    if scales and site.constant(scales).size:
        factors = [float(v) for v in site.constant(scales)]
        new = [math.floor(o * f) for o, f in zip(old, factors, strict=True)]
    else:
        new = [int(v) for v in site.constant(sizes)]
        factors = [n / o for n, o in zip(new, old, strict=True)]
        policy = site.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            new = [int(factor * o + 0.5) for o in old]
    made = {
        a: Axis(o, n, f, c) for a, o, n, f, c in zip(chosen, old, new, factors, crops, strict=True)
    }
    same = (0.0, 1.0)
    return {a: x for a, x in made.items() if x.new != x.old or x.crop != same or x.scale != 1.0}


def _coordinates(site: Site, axis: Axis) -> list[float]:
    """Where in the old axis each new point lies."""
    mode = site.attribute("coordinate_transformation_mode", "half_pixel")
    if site.facts.opset < 11:
        mode = "asymmetric"
    width = axis.scale * axis.old
    if mode == "align_corners":
        step = 0.0 if width == 1 else (axis.old - 1) / (width - 1)
        return [i * step for i in range(axis.new)]
    if mode == "asymmetric":
        return [i / axis.scale for i in range(axis.new)]
    if mode == "tf_crop_and_resize":
        begin, end = axis.crop
        last = axis.old - 1
        if width == 1:
            return [(end - begin) * last / 2 + begin * last] * axis.new
        step = (end - begin) * last / (width - 1)
        return [i * step + begin * last for i in range(axis.new)]
    if mode == "pytorch_half_pixel" and width == 1:
        return [-0.5] * axis.new
    shift = 0.0
    if mode == "half_pixel_symmetric":
        shift = axis.old / 2 * (1 - axis.new / width)
    return [shift + (i + 0.5) / axis.scale - 0.5 for i in range(axis.new)]


def _nearest(site: Site, axis: Axis) -> list[int]:
    how = site.attribute("nearest_mode", "round_prefer_floor")
    if site.facts.opset < 11:
        how = "floor"
    rounded = {
        "round_prefer_floor": lambda x: math.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: math.floor(x + 0.5),
        "floor": math.floor,
        "ceil": math.ceil,
    }[how]
    return [min(max(rounded(x), 0), axis.old - 1) for x in _coordinates(site, axis)]


def _matrix(site: Site, axis: Axis, mode: str) -> tuple[Any, Any]:
    """The weights [new, old], and which outputs lie outside the data."""
    import numpy as np

    xs = _coordinates(site, axis)
    if mode == "nearest":
        matrix = np.eye(axis.old)[_nearest(site, axis)]
    else:
        antialias = bool(site.attribute("antialias", 0))
        sharpness = site.attribute("cubic_coeff_a", -0.75)
        taps = [_taps(x, mode, axis.scale, antialias, sharpness) for x in xs]
        matrix = _rows(xs, taps, axis.old, bool(site.attribute("exclude_outside", 0)))
    outside = np.zeros(len(xs), np.bool_)
    if _crops(site):
        outside = np.array([x < 0 or x > axis.old - 1 for x in xs])
        matrix[outside] = 0
    return matrix, outside


def _taps(
    x: float, mode: str, scale: float, antialias: bool, sharpness: float
) -> list[tuple[int, float]]:
    """Which old points a new one at ``x`` is made of, and their weights."""
    factor = min(scale, 1.0) if antialias else 1.0
    reach = (2 if mode == "cubic" else 1) / factor
    ratio = x - math.floor(x) or 1.0  # the point to the left counts, also of a whole number
    base = round(x - ratio)
    first = math.floor(-reach) + 1
    offsets = range(first, math.ceil(reach) + 1) if mode == "cubic" else range(first, 2 - first)
    if mode == "cubic":
        offsets = range(first, 2 - first)
    weights = [_kernel(factor * (i - ratio), mode, sharpness) for i in offsets]
    total = sum(weights) if antialias else 1.0
    return [(base + i, w / total) for i, w in zip(offsets, weights, strict=True)]


def _kernel(x: float, mode: str, a: float) -> float:
    x = abs(x)
    if mode == "linear":
        return max(0.0, 1 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _rows(
    xs: Sequence[float], taps: Sequence[Sequence[tuple[int, float]]], old: int, exclude: bool
) -> Any:
    """Taps as a matrix; beyond the ends the last point goes on, or nothing with ``exclude``."""
    import numpy as np

    matrix = np.zeros((len(xs), old))
    for row, pairs in zip(matrix, taps, strict=True):
        inside = [(i, w) for i, w in pairs if 0 <= i < old]
        total = sum(w for _, w in inside) or 1.0
        for index, weight in inside if exclude else pairs:
            row[min(max(index, 0), old - 1)] += weight / (total if exclude else 1.0)
    return matrix


REWRITES = (
    Rewrite(("Resize",), disputed, known=True, always=True),
    Rewrite(("Resize",), resize, known=True),
    Rewrite(("Upsample",), upsample, known=True),
)
