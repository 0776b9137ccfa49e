"""Operators whose result follows from shapes and constants, or that only pick what is known."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown, evaluated


def shape_of(site: Site) -> Sequence[str]:
    import numpy as np

    shape = site.shape(site.input(0))
    begin, end = site.attribute("start", 0), site.attribute("end")
    return [site.name(np.asarray(shape[begin:end], np.int64))]


def size_of(site: Site) -> Sequence[str]:
    import numpy as np

    return [site.name(np.asarray(np.prod(site.shape(site.input(0))), np.int64))]


def eye_like(site: Site) -> Sequence[str]:
    """A constant: only the shape counts."""
    import numpy as np
    from onnx import helper

    rows, columns = site.shape(site.input(0))
    to = site.attribute("dtype", 0)
    dtype = helper.tensor_dtype_to_np_dtype(to) if to else site.dtype(site.input(0))
    return [site.name(np.eye(rows, columns, site.attribute("k", 0)).astype(dtype))]


def compress(site: Site) -> Sequence[str]:
    """By a constant condition: what is kept is known."""
    import numpy as np

    kept = np.flatnonzero(site.constant(site.input(1)))
    axis, value = site.attribute("axis"), site.input(0)
    if axis is None:
        value, axis = site.reshape(value, (-1,)), 0
    return [site.take(value, kept, axis)]


def folded(site: Site) -> Sequence[str]:
    """An operator of constants alone is one, by the reference's own computation."""
    inputs = {name: site.constant(name) for name in site.node.input if name}
    made = evaluated(site.node, inputs, site.facts.opset)
    if not made:
        raise Unknown(f"{site.operator} is not known to the reference")
    return [site.name(made[name]) if name else "" for name in site.node.output]


REWRITES = (
    Rewrite(("Shape",), shape_of, known=True),
    Rewrite(("Size",), size_of, known=True),
    Rewrite(("EyeLike",), eye_like, known=True),
    Rewrite(("Compress",), compress, known=True),
    Rewrite(
        ("MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow", "Unique", "NonZero"),
        folded,
        known=True,
    ),
)
