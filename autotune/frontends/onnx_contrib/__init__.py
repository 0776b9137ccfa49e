"""Models as ONNX Runtime's own tools write them, in the standard's operators.

Its quantiser writes operators of stored numbers (QLinearConv, com.microsoft.QLinearAdd), its
optimiser those that its kernels compute at once (com.microsoft.Attention). Here each becomes what
exporters write before those tools run, so that all that follows sees one kind of model. It comes
before every cure: the tools that those consist of know no operator of this domain, nor its shapes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from autotune.frontends.onnx_contrib import (
    attention,
    blocks,
    embeddings,
    fused,
    norms,
    products,
    quantised,
    rotary,
)
from autotune.frontends.onnx_rewrites import rewritten
from autotune.frontends.onnx_rewrites.base import Refused, Rewrite, qualified

LOWERINGS: tuple[Rewrite, ...] = (
    *products.REWRITES,
    *quantised.REWRITES,
    *fused.REWRITES,
    *norms.REWRITES,
    *attention.REWRITES,
    *embeddings.REWRITES,
    *rotary.REWRITES,
    *blocks.REWRITES,
)

LAYOUTS = "com.microsoft.nchwc"
"""The domain of what ONNX Runtime makes of convolutions for the processor that it ran on."""

PASSES = 200
"""How many may follow each other that need to know the shape of what the one before makes."""


def lowered(proto: Any) -> tuple[Any, Counter[str], str]:
    """``proto`` in the standard's operators; which ones were not so, and why others still are.

    ``proto`` itself where there are none. Raises ``Refused``.
    """
    if any(node.domain == LAYOUTS for node in proto.graph.node):
        raise Refused(
            f"operators of {LAYOUTS}, which fit the processor that ONNX Runtime optimised it "
            "for: write it with ORT_ENABLE_EXTENDED in place of ORT_ENABLE_ALL"
        )
    return rewritten(proto, lambda *_: True, LOWERINGS, "lowered", PASSES)


def lowers(operator: str, domain: str) -> bool:
    """Whether there is a lowering for ``operator``."""
    return any(qualified(operator, domain) in rewrite.names for rewrite in LOWERINGS)
