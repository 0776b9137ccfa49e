"""Words, their places and the sentences that they are of, looked up, added and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_contrib.norms import normalised
from autotune.frontends.onnx_contrib.quantised import MICROSOFT
from autotune.frontends.onnx_contrib.scales import real
from autotune.frontends.onnx_rewrites.base import Rewrite, Site

TABLES = {0: 2, 1: 4, 8: 3}
"""Inputs that are looked up, and those that they are looked up in."""


def embedded(site: Site) -> Sequence[str]:
    """EmbedLayerNormalization."""
    words, segments, table, places, kinds, scale, shift, mask, positions = (
        site.input(i) for i in range(9)
    )
    total = site.emit("Gather", table, words)
    total = site.emit("Add", total, _placed(site, places, positions))
    if kinds:
        total = site.emit("Add", total, site.emit("Gather", kinds, segments))
    return [normalised(site, total, scale, shift), _valid(site, mask), total]


def from_bytes(site: Site) -> Sequence[str]:
    """QEmbedLayerNormalization: the same of tables in 8 bits."""
    import numpy as np

    words, segments, table, places, kinds, scale, shift, mask = (site.input(i) for i in range(8))

    def told(place: int) -> tuple[str, str]:
        return site.input(8 + place), site.input(13 + place)

    def known(name: str, place: int) -> Any:
        size, zero = (site.constant(given).reshape(()) for given in told(place))
        stored = site.constant(name).astype(np.int32) - zero.astype(np.int32)
        return (stored * size).astype(np.float32)

    total = real(site, site.emit("Gather", table, words), *told(0))
    total = site.emit("Add", total, real(site, _placed(site, places, ""), *told(1)))
    if kinds:
        found = real(site, site.emit("Gather", kinds, segments), *told(2))
        total = site.emit("Add", total, found)
    made = normalised(site, total, site.name(known(scale, 3)), site.name(known(shift, 4)))
    return [made, _valid(site, mask)]


def _placed(site: Site, table: str, positions: str) -> str:
    """The rows of ``table`` at ``positions``, or its first ones."""
    if positions:
        return site.emit("Gather", table, positions)
    return site.slice(table, 0, site.shape(site.input(0))[1], 0)


def _valid(site: Site, mask: str) -> str:
    """How many words of each row ``mask`` shows; zero of all without one."""
    import numpy as np

    count, length = site.shape(site.input(0))
    valid: Any = np.zeros(count, np.int32)
    if mask:
        ones = site.cast(site.emit("Equal", mask, np.asarray(1, np.int32)), np.float32)
        lengths = site.emit("MatMul", ones, np.ones((length, 1), np.float32))
        valid = site.cast(site.reshape(lengths, (count,)), np.int32)
    return site.name(valid)


REWRITES = (
    Rewrite(("EmbedLayerNormalization",), embedded, domain=MICROSOFT),
    Rewrite(("QEmbedLayerNormalization",), from_bytes, domain=MICROSOFT),
)
