"""Rewrites of ONNX operators that TVM's importer does not know, refuses or gets wrong.

``REWRITES`` is the list of them, in the order of how many of the ONNX project's own tests each
cures. ``rewritten`` applies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from autotune.frontends.onnx_file import first_line
from autotune.frontends.onnx_relax import PRIVATE
from autotune.frontends.onnx_rewrites import (
    attention,
    control,
    deformable,
    images,
    ml_features,
    ml_linear,
    ml_scaling,
    ml_trees,
    ml_vectors,
    ngrams,
    norms,
    pointwise,
    qdq,
    quantised,
    recurrent,
    resize,
    sequences,
    shapes,
    spectra,
    state_space,
)
from autotune.frontends.onnx_rewrites.base import Facts, Refused, Rewrite, Site, Unknown, qualified

REWRITES: tuple[Rewrite, ...] = (
    attention.REWRITE,
    *resize.REWRITES,
    recurrent.REWRITE,
    *quantised.REWRITES,
    qdq.REWRITE,
    *pointwise.REWRITES,
    *spectra.REWRITES,
    *control.REWRITES,
    *sequences.REWRITES,
    *norms.REWRITES,
    *shapes.REWRITES,
    *images.REWRITES,
    *state_space.REWRITES,
    ngrams.REWRITE,
    deformable.REWRITE,
    *ml_scaling.REWRITES,
    *ml_features.REWRITES,
    *ml_linear.REWRITES,
    *ml_trees.REWRITES,
    *ml_vectors.REWRITES,
)

PASSES = 16
"""How deep operators may be nested in what others become."""

FINISHED = "rewritten"
"""What the names of nodes begin with that are not rewritten any more."""


def rewritten(
    proto: Any,
    wanted: Callable[[str, Rewrite], bool],
    rules: Sequence[Rewrite] = REWRITES,
    prefix: str = FINISHED,
    passes: int = PASSES,
) -> tuple[Any, Counter[str], str]:
    """``proto`` with operators rewritten; which ones how often; why others were not.

    A copy, or ``proto`` itself where none were.
    ``wanted`` is asked for each operator that there is a rule for, as ``qualified`` spells it. What
    takes a node's place is named with ``prefix``. Raises ``Refused``.
    """
    table: dict[str, list[Rewrite]] = {}
    for rewrite in rules:
        for operator in rewrite.names:
            if wanted(operator, rewrite):
                table.setdefault(operator, []).append(rewrite)
    made, done, reason = proto, Counter[str](), ""
    for number in range(passes):
        made, count, reason = _once(made, table, f"{prefix}.{number}")
        done += count
        if not count:
            break
    return made, done, reason


def _once(
    proto: Any, table: dict[str, list[Rewrite]], prefix: str
) -> tuple[Any, Counter[str], str]:
    """``proto`` with every node rewritten whose operator is in ``table``; itself where none is."""
    from onnx import helper

    graph, done, reason = proto.graph, Counter[str](), ""
    if not any(_ours(node, table) for node in graph.node):
        return proto, done, reason
    facts = Facts(proto)
    nodes: list[Any] = []
    tensors: list[Any] = []
    typed: list[Any] = []
    for index, node in enumerate(graph.node):
        if not _ours(node, table):
            nodes.append(node)
            continue
        site = Site(node, facts, f"{prefix}.{index}")
        made = None
        for rewrite in table[qualified(node.op_type, node.domain)]:
            try:
                made = made or rewrite.apply(site)
            except Refused:
                raise
            except Unknown as error:
                reason = reason or str(error)
            except Exception as error:  # a node that is not what its operator says
                reason = reason or f"{node.op_type} cannot be taken apart: {first_line(error)}"
        if made is None:
            nodes.append(node)
            continue
        nodes += site.nodes
        tensors += site.tensors
        typed += site.typed
        for new, old in zip(made, node.output, strict=False):
            if old:
                nodes.append(helper.make_node("Identity", [new], [old]))
        done[qualified(node.op_type, node.domain)] += 1
    if not done:
        return proto, done, reason
    copy = _copied(proto)
    if any(node.domain == PRIVATE for node in nodes) and not any(
        known.domain == PRIVATE for known in proto.opset_import
    ):
        copy.opset_import.append(helper.make_opsetid(PRIVATE, 1))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(tensors)
    copy.graph.value_info.extend(typed)
    return copy, done, reason


def _ours(node: Any, table: dict[str, list[Rewrite]]) -> bool:
    # What a rewrite emitted itself is left alone; what it took from a subgraph has a "/".
    finished = node.name.startswith(f"{FINISHED}.") and "/" not in node.name
    return not finished and qualified(node.op_type, node.domain) in table


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
