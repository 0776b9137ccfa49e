"""Columns chosen, joined and looked up, as sklearn-onnx writes it; words are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import ML, Refused, Rewrite, Site, Unknown

NESTED = 16
"""Keys of a LabelEncoder that are compared one after the other; more are compared at once."""


def array_feature_extractor(site: Site) -> Sequence[str]:
    """Columns by their numbers, which may be computed."""
    x, columns = site.input(0), site.input(1)
    shape = site.shape(x)
    flat = site.reshape(columns, (-1,))
    taken = site.emit("Gather", x, flat, axis=len(shape) - 1)
    return [site.reshape(taken, (1, -1)) if len(shape) == 1 else taken]


def feature_vectorizer(site: Site) -> Sequence[str]:
    import numpy as np

    parts = [site.cast(name, np.float32) for name in site.node.input]
    rows = [
        site.reshape(part, (1, -1)) if len(site.shape(name)) == 1 else part
        for part, name in zip(parts, site.node.input, strict=True)
    ]
    return [site.emit("Concat", *rows, axis=1)]


def one_hot_encoder(site: Site) -> Sequence[str]:
    """One column a category; a number that is none of them has zeros."""
    import numpy as np

    if site.attribute("cats_strings"):
        raise Refused(f"categories that are words: {WORDS}")
    categories = site.attribute("cats_int64s") or []
    x, shape = site.input(0), site.shape(site.input(0))
    whole = site.reshape(site.cast(x, np.int64), (*shape, 1))
    return [site.cast(site.emit("Equal", whole, np.asarray(categories, np.int64)), np.float32)]


def label_encoder(site: Site) -> Sequence[str]:
    """Numbers for numbers, by a table of constants."""
    import numpy as np

    keys, values, default = _table(site)
    x = site.input(0)
    keys = keys.astype(site.dtype(x))

    def equal(value: str, key: Any) -> str:
        if key.dtype.kind == "f" and np.isnan(key).any():
            raise Unknown("a LabelEncoder has NaN among its keys")
        return site.emit("Equal", value, key)

    if len(keys) <= NESTED:
        result: Any = default
        for key, value in reversed(list(zip(keys, values, strict=True))):
            result = site.emit("Where", equal(x, np.asarray(key)), np.asarray(value), result)
        return [result]
    shape = site.shape(x)
    same = site.cast(equal(site.reshape(x, (*shape, 1)), keys), np.float32)
    place = site.emit("ArgMax", same, axis=len(shape), keepdims=0)
    known = site.reshape(site.reduce("ReduceMax", same, len(shape)), shape)
    found = site.emit("Gather", values, place, axis=0)
    return [site.emit("Where", site.emit("Greater", known, np.float32(0)), found, default)]


def _table(site: Site) -> tuple[Any, Any, Any]:
    """Keys, values and the default of a LabelEncoder, as arrays. Raises ``Refused`` for words."""
    import numpy as np
    from onnx import numpy_helper

    found = {}
    for part in ("keys", "values"):
        if site.attribute(f"{part}_strings") or site.attribute("classes_strings"):
            raise Refused(f"a LabelEncoder of words: {WORDS}")
        for kind, wanted in (("int64s", np.int64), ("floats", np.float32)):
            if (numbers := site.attribute(f"{part}_{kind}")) is not None:
                found[part] = np.asarray(numbers, wanted)
        if (tensor := site.attribute(f"{part}_tensor")) is not None:
            found[part] = numpy_helper.to_array(tensor).reshape(-1)
    if len(found) != 2 or found["values"].dtype.kind not in "iuf":
        raise Refused(f"a LabelEncoder of words: {WORDS}")
    dtype = found["values"].dtype
    default = site.attribute("default_tensor")
    if default is not None:
        number = numpy_helper.to_array(default).reshape(-1)[0]
    elif dtype == np.int64:
        number = site.attribute("default_int64", -1)
    else:
        number = site.attribute("default_float", -0.0)
    return found["keys"], found["values"], np.asarray(number, dtype)


def zip_map(site: Site) -> Sequence[str]:
    raise Refused(
        "a ZipMap, which returns dictionaries: export it without "
        "(zipmap=False in the options of sklearn-onnx)"
    )


WORDS = "give it numbers, and look the words up before"

REWRITES = (
    Rewrite(("ArrayFeatureExtractor",), array_feature_extractor, domain=ML),
    Rewrite(("FeatureVectorizer",), feature_vectorizer, domain=ML),
    Rewrite(("OneHotEncoder",), one_hot_encoder, domain=ML),
    Rewrite(("LabelEncoder",), label_encoder, domain=ML),
    Rewrite(("ZipMap",), zip_map, domain=ML, always=True),
)
