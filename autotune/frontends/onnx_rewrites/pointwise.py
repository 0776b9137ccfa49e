"""Operators that work element by element, and OneHot and CumProd, which become such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown


def one_hot(site: Site) -> Sequence[str]:
    import numpy as np

    indices, depth, values = (site.input(i) for i in range(3))
    rank, dtype = len(site.shape(indices)), np.dtype(np.int64)
    indices = site.cast(indices, dtype)  # of floats as well
    count = int(site.constant(depth).reshape(-1)[0])
    axis = site.attribute("axis", -1) % (rank + 1)
    shape = list(site.shape(site.input(0)))
    shape.insert(axis, 1)
    given = site.reshape(indices, shape)
    zero, all_of = np.asarray(0, dtype), np.asarray(count, dtype)
    wrapped = site.emit("Add", given, all_of)
    given = site.emit("Where", site.emit("Less", given, zero), wrapped, given)
    places = np.arange(count).astype(dtype)
    places = places.reshape([count if i == axis else 1 for i in range(rank + 1)])
    off, on = (site.reshape(site.slice(values, i, i + 1, 0), ()) for i in range(2))
    return [site.emit("Where", site.emit("Equal", given, places), on, off)]


def power(site: Site) -> Sequence[str]:
    """In the type of the base where both are floats, in float64 for integers."""
    import numpy as np

    base, exponent = site.input(0), site.input(1)
    dtype = site.dtype(base)
    wide: Any = dtype if dtype.kind == "f" and site.dtype(exponent).kind == "f" else np.float64
    if dtype.kind == "f" and dtype.itemsize == 4:
        wide = np.float32
    raised = site.emit("Pow", site.cast(base, wide), site.cast(exponent, wide))
    if dtype.kind == "f":
        return [site.cast(raised, dtype)]
    # A power of zero may be infinite, which processors turn into the lowest integer.
    limits = np.iinfo(dtype)
    fits = site.emit("LessOrEqual", site.emit("Abs", raised), np.asarray(limits.max, wide))
    bounded = site.cast(site.emit("Where", fits, raised, np.asarray(0, wide)), dtype)
    return [site.emit("Where", fits, bounded, np.asarray(limits.min, dtype))]


def prelu(site: Site) -> Sequence[str]:
    import numpy as np

    x, slope = site.input(0), site.input(1)
    shape, own = site.shape(x), site.shape(slope)
    if len(own) == 1 and own[0] > 1 and (site.facts.opset < 7 or own[0] != shape[-1]):
        # One for each channel, as before opset 7.
        slope = site.reshape(slope, (own[0], *(1,) * (len(shape) - 2)))
    below = site.emit("Less", x, np.asarray(0, site.dtype(x)))
    return [site.emit("Where", below, site.emit("Mul", x, slope), x)]


def prefix_product(site: Site) -> Sequence[str]:
    """CumProd by doubling: after n steps each place holds the product of 2**n neighbours."""
    import numpy as np

    x, shape, dtype = site.input(0), site.shape(site.input(0)), site.dtype(site.input(0))
    axis = int(site.constant(site.input(1)).reshape(-1)[0]) % len(shape)
    length, value = shape[axis], x
    backward = site.attribute("reverse", 0)

    def shifted(data: str, by: int) -> str:
        ones = np.ones([by if i == axis else n for i, n in enumerate(shape)], dtype)
        if backward:
            return site.emit("Concat", site.slice(data, by, length, axis), ones, axis=axis)
        return site.emit("Concat", ones, site.slice(data, 0, length - by, axis), axis=axis)

    if site.attribute("exclusive", 0):
        if length == 1:
            return [site.name(np.ones(shape, dtype))]
        value = shifted(value, 1)
    by = 1
    while by < length:
        value = site.emit("Mul", value, shifted(value, by))
        by *= 2
    return [value]


def bit_shift(site: Site) -> Sequence[str] | None:
    """A shift by the width or more leaves nothing (or the sign); a processor leaves anything."""
    import numpy as np

    value, by, dtype = site.input(0), site.input(1), site.dtype(site.input(0))
    left = site.attribute("direction") == "LEFT"
    bits = dtype.itemsize * 8
    known = site.facts.constant(by)
    if known is not None and ((known >= 0) & (known < bits)).all():
        return None
    last, zero = np.asarray(bits - 1, dtype), np.asarray(0, dtype)
    outside = site.emit("Greater", by, last)
    if dtype.kind == "i":
        # A negative number of bits counts as a large one.
        outside = site.emit("Or", outside, site.emit("Less", by, zero))
    signed = dtype.kind == "i" and not left
    near = site.emit("Where", outside, last if signed else zero, by)
    shifted = site.emit("BitShift", value, near, direction="LEFT" if left else "RIGHT")
    return [shifted if signed else site.emit("Where", outside, zero, shifted)]


def clip(site: Site) -> Sequence[str]:
    """The lower bound first: where it is above the upper one, that is the result."""
    value = site.input(0)
    if site.input(1):
        value = site.emit("Max", value, site.input(1))
    if site.input(2):
        value = site.emit("Min", value, site.input(2))
    return [value]


def is_infinite(site: Site) -> Sequence[str] | None:
    """Of one sign alone, which TVM's importer takes no notice of."""
    import numpy as np

    x = site.input(0)
    signs = [site.attribute(name, 1) for name in ("detect_negative", "detect_positive")]
    if all(signs):
        return None
    zero, dtype = np.asarray(0, site.dtype(x)), site.dtype(x)
    if not any(signs):
        return [site.emit("Less", x, site.name(np.asarray(-np.inf, dtype)))]
    sign = site.emit("Less" if signs[0] else "Greater", x, zero)
    return [site.emit("And", site.emit("IsInf", x), sign)]


def modulo(site: Site) -> Sequence[str] | None:
    """Of floats with the sign of the divisor: infinite divisors and zeros included."""
    import numpy as np

    x, y, dtype = site.input(0), site.input(1), site.dtype(site.input(0))
    if dtype.kind != "f" or site.attribute("fmod", 0):
        return None
    zero = np.asarray(0, dtype)
    rest = site.emit("Mod", x, y, fmod=1)
    # Of the other sign than the divisor: one divisor more.
    other = site.emit("Less", site.emit("Mul", site.emit("Sign", rest), site.emit("Sign", y)), zero)
    return [site.emit("Where", other, site.emit("Add", rest, y), rest)]


def dropout(site: Site) -> Sequence[str] | None:
    """Nothing is dropped in inference, and the mask is of booleans."""
    import numpy as np

    training = site.facts.constant(site.input(2)) if site.input(2) else np.asarray(False)
    ratio = site.facts.constant(site.input(1)) if site.input(1) else np.asarray(0.5)
    if site.facts.opset < 7 and not site.attribute("is_test", 0):
        return None
    if training is None or (training.any() and (ratio is None or ratio.any())):
        raise Unknown("a Dropout that drops at random, as in training")
    x, outputs = site.input(0), [site.emit("Identity", site.input(0))]
    if len(site.node.output) > 1 and site.node.output[1]:
        dtype = np.bool_ if site.facts.opset >= 10 else site.dtype(x)
        outputs.append(site.name(np.ones(site.shape(x), dtype)))
    return outputs


def determinant(site: Site) -> Sequence[str] | None:
    """Of small matrices, by their first rows."""
    shape = site.shape(site.input(0))
    size = shape[-1]
    if size > 4:
        raise Unknown(f"the determinant of a matrix of {size} rows: at most 4 can be compiled")
    flat = site.reshape(site.input(0), (-1, size * size))

    def minor(row: int, columns: tuple[int, ...]) -> str:
        entries = [site.slice(flat, row * size + c, row * size + c + 1, 1) for c in columns]
        if len(columns) == 1:
            return entries[0]
        total = ""
        for place, entry in enumerate(entries):
            rest = minor(row + 1, columns[:place] + columns[place + 1 :])
            part = site.emit("Mul", entry, rest)
            total = site.emit("Sub" if place % 2 else "Add", total, part) if total else part
        return total

    return [site.reshape(minor(0, tuple(range(size))), shape[:-2])]


def swiglu(site: Site) -> Sequence[str]:
    """a * sigmoid(alpha a) * b."""
    import numpy as np

    a, b, dtype = site.input(0), site.input(1), site.dtype(site.input(0))
    alpha = np.asarray(site.attribute("alpha", 1.0), dtype)
    gate = site.emit("Sigmoid", site.emit("Mul", a, alpha))
    return [site.emit("Mul", site.emit("Mul", a, gate), b)]


REWRITES = (
    Rewrite(("OneHot",), one_hot, known=True),
    Rewrite(("Pow",), power, known=True),
    Rewrite(("PRelu",), prelu, known=True),
    Rewrite(("CumProd",), prefix_product),
    Rewrite(("Clip",), clip, known=True),
    Rewrite(("BitShift",), bit_shift, known=True, always=True),
    Rewrite(("IsInf",), is_infinite, known=True, always=True),
    Rewrite(("Mod",), modulo, known=True, always=True),
    Rewrite(("Dropout",), dropout, known=True, always=True),
    Rewrite(("SwiGLU",), swiglu),
    Rewrite(("Det",), determinant),
)
