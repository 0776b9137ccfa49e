"""Numbers made ready, as sklearn-onnx writes it: Scaler, Normalizer, Binarizer and Imputer."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import ML, Rewrite, Site, Unknown


def floats(site: Site) -> str:
    """The input in float32, in which these operators compute whatever they get."""
    import numpy as np

    name = site.input(0)
    return name if site.dtype(name) == np.float32 else site.cast(name, np.float32)


def scaler(site: Site) -> Sequence[str]:
    """``(x - offset) * scale``, each of one number or one a feature."""
    import numpy as np

    value = floats(site)
    for name, operator in (("offset", "Sub"), ("scale", "Mul")):
        numbers = site.attribute(name)
        if numbers:
            value = site.emit(operator, value, np.asarray(numbers, np.float32))
    return [value]


def normalizer(site: Site) -> Sequence[str]:
    """Rows divided by their norm, and left alone where it is zero."""
    import numpy as np

    shape = site.shape(site.input(0))
    if len(shape) not in (1, 2):
        raise Unknown("a Normalizer is for rows of a table")
    norm, value = site.attribute("norm", "MAX"), floats(site)
    if norm == "MAX":
        length = site.reduce("ReduceMax", value, len(shape) - 1)
    else:
        powers = site.emit("Abs", value) if norm == "L1" else site.emit("Mul", value, value)
        rows = powers if len(shape) == 2 else site.reshape(powers, (1, shape[0]))
        length = site.emit("MatMul", rows, np.ones((shape[-1], 1), np.float32))
        length = length if len(shape) == 2 else site.reshape(length, (1,))
        length = length if norm == "L1" else site.emit("Sqrt", length)
    none = site.emit("Equal", length, np.float32(0))
    return [site.emit("Div", value, site.emit("Where", none, np.float32(1), length))]


def binarizer(site: Site) -> Sequence[str]:
    import numpy as np

    x = site.input(0)
    dtype = site.dtype(x)
    threshold = np.asarray(site.attribute("threshold", 0.0), np.float32)
    return [site.cast(site.emit("Greater", floats(site), threshold), dtype)]


def imputer(site: Site) -> Sequence[str]:
    """Missing numbers, which are NaN or have a value that says so, by others."""
    import numpy as np

    x = site.input(0)
    dtype = site.dtype(x)
    kind = "float" if dtype.kind == "f" else "int64"
    numbers = site.attribute(f"imputed_value_{kind}s")
    if not numbers:
        raise Unknown(f"an Imputer of {dtype.name} has no numbers to put in")
    missing = site.attribute(f"replaced_value_{kind}", 0)
    if np.isnan(missing):
        found = site.emit("IsNaN", x)
    else:
        found = site.emit("Equal", x, np.asarray(missing, dtype))
    return [site.emit("Where", found, np.asarray(numbers, dtype), x)]


REWRITES = (
    Rewrite(("Scaler",), scaler, domain=ML),
    Rewrite(("Normalizer",), normalizer, domain=ML),
    Rewrite(("Binarizer",), binarizer, domain=ML),
    Rewrite(("Imputer",), imputer, domain=ML),
)
