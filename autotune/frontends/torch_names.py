"""What the nodes of a PyTorch program are called where their kernels are spoken of."""

from __future__ import annotations

from typing import Any


def label(node: Any) -> str:
    """The module that a node of the program is from, by its path, and the node's name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.removeprefix("L['self'].")
    return f"{path}/{node.name}" if path else str(node.name)
