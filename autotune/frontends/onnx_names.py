"""Which nodes of an ONNX model the nodes are made from that it was simplified or rewritten to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SHAPES = frozenset(["Shape", "Size", "Constant", "ConstantOfShape"])
"""Operators of which nothing is left once the shapes are known."""


def label(node: Any) -> str:
    """The name of a node; of one without, what its first output is called, and its operator."""
    return str(node.name) or f"{node.op_type} of {next(iter(node.output), '')}"


def original_names(original: Any, made: Any) -> dict[str, tuple[str, ...]]:
    """By the first output of each node of ``made``: the nodes of ``original`` it stands for.

    Tensors keep their names when a model is simplified. So a node stands for whatever is computed
    between its output and the tensors that other nodes make; those whose output is new stand for
    what they are made for.
    """
    nodes = list(original.graph.node)
    source = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    moving = _moving(original, nodes)
    left = {name for node in made.graph.node for name in node.output}
    left |= {value.name for value in made.graph.input}
    left |= {tensor.name for tensor in made.graph.initializer}

    def computed(outputs: Iterable[str]) -> tuple[str, ...]:
        found: set[int] = set()
        queue = [source[name] for name in outputs if name in source]
        while queue:
            place = queue.pop()
            if place in found:
                continue
            found.add(place)
            reads = (name for name in nodes[place].input if name not in left)
            queue += [source[name] for name in reads if source.get(name, -1) in moving]
        return tuple(label(nodes[place]) for place in sorted(found))

    names: dict[str, tuple[str, ...]] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    for node in reversed(made.graph.node):
        found = computed(node.output)
        if not found:
            found = next((wanted[name] for name in node.output if name in wanted), ())
        if node.output:
            names[node.output[0]] = found
        for name in node.input:
            wanted[name] = found or wanted.get(name, ())
    return names


def _moving(original: Any, nodes: list[Any]) -> set[int]:
    """Places of the nodes whose result depends on the data that a model is given."""
    constant = {tensor.name for tensor in original.graph.initializer}
    moving = {value.name for value in original.graph.input} - constant
    places: set[int] = set()
    for place, node in enumerate(nodes):
        subgraphs = any(attribute.HasField("g") for attribute in node.attribute)
        if node.op_type in SHAPES or not (subgraphs or moving & {*node.input}):
            continue
        places.add(place)
        moving.update(node.output)
    return places
