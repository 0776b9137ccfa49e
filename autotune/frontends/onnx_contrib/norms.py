"""Normalisations over the last axis, with what ONNX Runtime's optimiser joins to them."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

STANDARD = 17
"""The opset from which ONNX has LayerNormalization; before it is spelled out, as exporters do."""


def normalised(site: Site, x: str, scale: str, bias: str, axis: int = -1) -> str:
    """``x`` less its mean over the last axes, by its deviation, scaled and shifted."""
    epsilon = site.attribute("epsilon", 1e-5 if site.operator == "LayerNormalization" else 1e-12)
    if site.facts.opset >= STANDARD:
        given = [x, scale, bias] if bias else [x, scale]
        return site.emit("LayerNormalization", *given, axis=axis, epsilon=epsilon)
    if axis != -1:
        raise Unknown("a LayerNormalization of several axes before opset 17")
    centred = site.emit("Sub", x, site.reduce("ReduceMean", x, -1))
    root = _root(site, centred, epsilon)
    made = site.emit("Mul", site.emit("Div", centred, root), scale)
    return site.emit("Add", made, bias) if bias else made


def _root(site: Site, x: str, epsilon: float) -> str:
    """The root of the mean square over the last axis."""
    import numpy as np

    mean = site.reduce("ReduceMean", site.emit("Mul", x, x), -1)
    return site.emit("Sqrt", site.emit("Add", mean, np.asarray(epsilon, np.float32)))


def by_root(site: Site, x: str, scale: str) -> str:
    """The same without the mean: a root mean square norm."""
    epsilon = site.attribute("epsilon", 1e-5 if "Skip" not in site.operator else 1e-12)
    return site.emit("Mul", site.emit("Div", x, _root(site, x, epsilon)), scale)


def _unread(site: Site, *outputs: int) -> None:
    """Raises ``Unknown`` where one of ``outputs`` is wanted: ONNX Runtime makes them to train."""
    if any(i < len(site.node.output) and site.node.output[i] for i in outputs):
        raise Unknown(f"{site.operator} with statistics as outputs")


def skip(site: Site) -> Sequence[str]:
    """SkipLayerNormalization and SkipSimplifiedLayerNormalization: of a sum, which is an output."""
    _unread(site, 1, 2)
    simple = "Simplified" in site.operator
    x, beside, scale, shift, bias = (site.input(i) for i in range(5))
    if simple:
        shift, bias = "", shift
    # ONNX Runtime adds the bias last; what it is added to may broadcast over the batch.
    total = site.emit("Add", x, beside)
    if bias:
        total = site.emit("Add", total, bias)
    made = by_root(site, total, scale) if simple else normalised(site, total, scale, shift)
    return [made, "", "", total]


def layer(site: Site) -> Sequence[str] | None:
    """LayerNormalization before it was of the standard: ONNX Runtime writes it at any opset."""
    if site.facts.opset >= STANDARD:
        return None
    _unread(site, 1, 2)
    x, scale, bias = (site.input(i) for i in range(3))
    return [normalised(site, x, scale, bias, _last(site))]


def simplified(site: Site) -> Sequence[str]:
    """SimplifiedLayerNormalization, which has ONNX's domain and is not ONNX's."""
    _unread(site, 1)
    if _last(site) != -1:
        raise Unknown("a SimplifiedLayerNormalization of several axes")
    return [by_root(site, site.input(0), site.input(1))]


def _last(site: Site) -> int:
    """The attribute "axis", minus one for the last."""
    axis = int(site.attribute("axis", -1))
    if axis < 0:
        return axis
    return axis - len(site.shape(site.input(0)))


REWRITES: tuple[Rewrite, ...] = (
    Rewrite(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip, domain=MICROSOFT),
    Rewrite(("LayerNormalization",), layer),
    Rewrite(("SimplifiedLayerNormalization",), simplified),
)
