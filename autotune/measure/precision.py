"""The same function in float64, so that a reference is not itself as wrong as what it judges.

A plain loop over 4608 products in float32 is off by more than a good schedule of it, which sums in
several partial sums. In float64 the reference errs by nothing that matters here.
"""

from __future__ import annotations

import json
from typing import Any, Literal

Precision = Literal["float64", "as written"]
"""What a reference was computed in."""

_BITS = frozenset({"tirx.reinterpret", "tirx.call_extern", "tirx.call_pure_extern"})
_STEPS = frozenset(
    {"tirx.floor", "tirx.ceil", "tirx.round", "tirx.nearbyint", "tirx.trunc", "tirx.fmod"}
)
_EXACT = ("int", "uint", "bool", "float64", "handle", "void")


def in_float64(function: str) -> str | None:
    """``Workload.function`` with every float32 (buffers, constants, intrinsics) made float64.

    None where nothing is float32, and where the text is about bits and not about numbers: a
    reinterpretation of bits, an external function, float16 and the like, whose rounding is part of
    what is computed.
    """
    # The types of expressions are no structure to TVM's mutators, which would leave them as they
    # are; in the graph that is stored each is one node of its own kind.
    graph = json.loads(function)
    changed = False
    for node in graph["nodes"]:
        if node["type"] == "ir.Op" and (node["data"] in _BITS or "llvm" in node["data"]):
            return None
        if node["type"] != "ir.PrimType":
            continue
        dtype = node["data"]["dtype"]
        if dtype == "float32":
            node["data"]["dtype"] = "float64"
            changed = True
        elif not dtype.startswith(_EXACT):
            return None
    return json.dumps(graph) if changed else None


def has_steps(function: str) -> bool:
    """Whether a number is rounded to an integer somewhere.

    There two right computations may be one whole step apart: 2.9999999 and 3.0000001.
    """
    nodes: list[Any] = json.loads(function)["nodes"]
    return any(
        node["data"] in _STEPS if node["type"] == "ir.Op" else _rounds(node, nodes)
        for node in nodes
    )


def _rounds(node: Any, nodes: list[Any]) -> bool:
    """Whether ``node`` is a cast from a float to an integer."""
    if node["type"] != "prim.Cast":
        return False
    value = nodes[node["data"]["value"]]
    return "int" in _dtype(node, nodes) and "float" in _dtype(value, nodes)


def _dtype(node: Any, nodes: list[Any]) -> str:
    kind = nodes[node["data"]["ty"]]
    return str(kind["data"]["dtype"]) if kind["type"] == "ir.PrimType" else ""
