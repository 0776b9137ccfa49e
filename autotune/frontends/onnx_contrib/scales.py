"""Real numbers from stored ones and back, by the standard's own pair of operators.

Between the two a quantised operator is the one of floats. ``onnx_rewrites/qdq.py`` and
``graph/integers.py`` make integer kernels of that, as of what exporters write in this form.
"""

from __future__ import annotations

from typing import Any

from autotune.frontends.onnx_rewrites.base import Site


def real(site: Site, stored: str, scale: Any, zero: Any = "", axis: int | None = None) -> str:
    """``scale * (stored - zero)``, by ``axis`` where there is a scale for each of its numbers."""
    told = [plain(site, value) for value in (scale, zero) if not _absent(value)]
    attributes = {} if axis is None else {"axis": axis}
    return site.emit("DequantizeLinear", stored, *told, **attributes)


def stored(site: Site, value: str, scale: Any, zero: str, like: str = "") -> str:
    """``value`` as stored numbers; without ``zero`` they have the type of ``like``."""
    import numpy as np

    point = plain(site, zero) if zero else np.zeros((), site.dtype(like))
    return site.emit("QuantizeLinear", value, plain(site, scale), point)


def plain(site: Site, value: Any) -> Any:
    """A constant of one number without axes, so that it broadcasts; anything else as it is."""
    known = site.facts.constant(value) if isinstance(value, str) else value
    return value if known is None or known.size != 1 else known.reshape(())


def _absent(value: Any) -> bool:
    return isinstance(value, str) and not value
