"""If, Loop and Scan of a course that is known: the branch that is taken, every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.frontends.onnx_rewrites.base import Rewrite, Site, Unknown

STEPS, NODES = 1024, 20_000
"""Steps, and nodes that they are unrolled to, at most."""


def branch(site: Site) -> Sequence[str]:
    taken = bool(site.constant(site.input(0)).reshape(-1)[0])
    return inlined(site, site.attribute("then_branch" if taken else "else_branch"), ())


def loop(site: Site) -> Sequence[str]:
    import numpy as np

    body = site.attribute("body")
    trips = 2**63 - 1
    if site.input(0):
        trips = int(site.constant(site.input(0)).reshape(-1)[0])
    going = True
    if site.input(1):
        going = bool(site.constant(site.input(1)).reshape(-1)[0])
    if trips > STEPS and _never_stops(body):
        raise Unknown(f"a Loop of {trips} steps: at most {STEPS} can be compiled")
    carried = list(site.node.input[2:])
    count, step = len(carried), 0
    rows: list[list[str]] = []
    while going and step < trips:
        if step >= STEPS or step * len(body.node) > NODES:
            raise Unknown(f"a Loop of more than {step} steps: export it as one operator")
        given = [site.name(np.asarray(step, np.int64)), site.name(np.asarray(going)), *carried]
        condition, *made = inlined(site, body, given)
        known = site.value(condition)
        if known is None:
            raise Unknown("whether a Loop goes on depends on the data")
        going, carried = bool(known.reshape(-1)[0]), made[:count]
        rows.append(made[count:])
        step += 1
    scanned = len(site.node.output) - count
    if scanned and not rows:
        raise Unknown("a Loop takes no step, so the shape of what it collects is not known")
    stacks = [_stacked(site, [row[i] for row in rows], 0) for i in range(scanned)]
    return [*carried, *stacks]


def _never_stops(body: Any) -> bool:
    """Whether the condition is only handed on: then the number of steps is what counts."""
    source = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    name = body.output[0].name
    while name in source:
        name = source.pop(name)
    return bool(name == body.input[1].name)


def scan(site: Site) -> Sequence[str]:
    body, count = site.attribute("body"), site.attribute("num_scan_inputs")
    if site.facts.opset >= 9:
        states = list(site.node.input[:-count])
        sequences = list(site.node.input[-count:])
        axes = list(site.attribute("scan_input_axes") or [0] * count)
        finals, rows = _scanned(site, body, states, sequences, axes)
        out = site.attribute("scan_output_axes") or [0] * len(rows)
        return [*finals, *(_stacked(site, row, axis) for row, axis in zip(rows, out, strict=True))]
    # Opset 8 scans along the second axis, each element of the batch by itself.
    if site.input(0):
        raise Unknown("a Scan of opset 8 with lengths of its own for each sequence")
    states, sequences = list(site.node.input[1:-count]), list(site.node.input[-count:])
    batch = site.shape(sequences[0])[0]
    all_finals, all_rows = [], []
    for element in range(batch):
        own, rest = ([_picked(site, v, element, 0) for v in part] for part in (states, sequences))
        lengths = [site.shape(name)[1] for name in sequences]
        finals, rows = _scanned(site, body, own, rest, [0] * count, lengths[0])
        all_finals.append(finals)
        all_rows.append([_stacked(site, row, 0) for row in rows])
    columns = [*zip(*all_finals, strict=True), *zip(*all_rows, strict=True)]
    return [_stacked(site, list(column), 0) for column in columns]


def _scanned(
    site: Site,
    body: Any,
    states: list[str],
    sequences: list[str],
    axes: list[int],
    length: int | None = None,
) -> tuple[list[str], list[list[str]]]:
    """The last states, and for each collected output its value at each step, in output order."""
    count = len(sequences)
    if length is None:
        length = site.shape(sequences[0])[axes[0]]
    if length > STEPS or length * len(body.node) > NODES:
        raise Unknown(f"a Scan of {length} steps: at most {STEPS} can be compiled")
    backward = list(site.attribute("scan_input_directions") or site.attribute("directions") or [])
    backward = backward or [0] * count
    rows: list[list[str]] = []
    kept = len(states)
    for step in range(length):
        given = [
            _picked(site, name, length - 1 - step if back else step, axis)
            for name, axis, back in zip(sequences, axes, backward, strict=True)
        ]
        made = inlined(site, body, [*states, *given])
        states = list(made[:kept])
        rows.append(list(made[kept:]))
    columns = [list(column) for column in zip(*rows, strict=True)]
    reverse = list(site.attribute("scan_output_directions") or [0] * len(columns))
    return states, [c[::-1] if back else c for c, back in zip(columns, reverse, strict=True)]


def _picked(site: Site, value: str, index: int, axis: int) -> str:
    import numpy as np

    return site.emit("Gather", value, np.asarray(index, np.int64), axis=axis)


def _stacked(site: Site, values: Sequence[str], axis: int) -> str:
    parts = [site.unsqueeze(value, axis) for value in values]
    while len(parts) > 1:
        groups = [parts[i : i + 16] for i in range(0, len(parts), 16)]
        parts = [g[0] if len(g) == 1 else site.emit("Concat", *g, axis=axis) for g in groups]
    return parts[0]


def inlined(site: Site, graph: Any, inputs: Sequence[str]) -> list[str]:
    """Emit the nodes of ``graph`` with ``inputs``; returns the names of its outputs.

    Names that it takes from outside stay what they are.
    """
    prefix = site.fresh()
    names = {value.name: given for value, given in zip(graph.input, inputs, strict=False)}
    for tensor in graph.initializer:
        copy = type(tensor)()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name] = f"{prefix}/{tensor.name}"
        site.tensors.append(copy)
    for node in graph.node:
        copy = type(node)()
        copy.CopyFrom(node)
        _rename(copy, names)
        for position, output in enumerate(node.output):
            if output:
                copy.output[position] = names[output] = f"{prefix}/{output}"
        copy.name = f"{prefix}/{node.name}"
        site.nodes.append(copy)
    # An output may be an input of the graph, or even come from outside.
    return [names.get(value.name, value.name) for value in graph.output]


def _rename(node: Any, names: dict[str, str]) -> None:
    """Rename what ``node`` reads, in its subgraphs as well, where they do not define it anew."""
    for position, name in enumerate(node.input):
        node.input[position] = names.get(name, name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {output for inner in graph.node for output in inner.output}
            outer = {name: new for name, new in names.items() if name not in own}
            for inner in graph.node:
                _rename(inner, outer)
            for value in graph.output:
                if value.name in outer:
                    value.name = outer[value.name]


REWRITES = (Rewrite(("If",), branch, True), Rewrite(("Loop",), loop), Rewrite(("Scan",), scan))
