"""RNN, GRU and LSTM of ONNX as one product, and one function that loops over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.frontends.activations import NAMES, Activation
from autotune.frontends.onnx_relax import RECURRENCE
from autotune.frontends.onnx_rewrites.base import Site
from autotune.frontends.recurrence import Recurrence

SHORTEST = 2
"""Steps from which a loop is worth it."""


def looped(
    site: Site,
    x: str,
    extents: tuple[int, int, int],
    lengths: str | None,
    activations: Sequence[Activation],
) -> list[str] | None:
    """The outputs of the node, batches second; None where its steps have to be unrolled.

    ``x`` is the sequence and ``extents`` its steps, batch and width; ``lengths`` are those of each
    sequence where they differ, and ``activations`` those of all directions.
    """
    steps, batch, width = extents
    directions, _, size = site.shape(site.input(2))
    names = {name for name, *_ in activations}
    if steps < SHORTEST or site.dtype(site.input(0)) != np.float32 or not names <= {*NAMES}:
        return None
    kinds = {"RNN": 1, "GRU": 2, "LSTM": 3}[site.operator]
    spec = Recurrence(
        operator=site.operator,
        steps=steps,
        batch=batch,
        size=size,
        directions=directions,
        activations=tuple(activations[: kinds * directions]),
        reverse=site.attribute("direction", "forward") == "reverse",
        clip=float(site.attribute("clip", 0.0)),
        after=bool(site.attribute("linear_before_reset", 0)),
        coupled=bool(site.attribute("input_forget", 0)),
        peepholes=bool(site.input(7)),
        lengths=lengths is not None,
    )
    of_input, of_state = _bias(site, spec)
    wide = directions * spec.gates * spec.wide
    weights = _filled(site, spec, site.input(1), (directions, spec.gates, size, width))
    weights = site.transpose(site.reshape(weights, (wide, width)), (1, 0))
    projection = site.emit("MatMul", site.reshape(x, (steps * batch, width)), weights)
    if of_input:
        projection = site.emit("Add", projection, site.reshape(of_input, (wide,)))
    inputs = [projection, *_weights(site, spec)]
    inputs += [_first(site, spec, position) for position in (5, 6)[: spec.states]]
    if spec.operator == "GRU":
        zeros = np.zeros((directions, spec.gates * spec.wide), np.float32)
        inputs.append(of_state or site.name(zeros))
    if spec.peepholes:
        filled = _filled(site, spec, site.input(7), (directions, 3, size))
        inputs.append(site.reshape(filled, (directions, 3 * spec.wide)))
    if lengths is not None:
        inputs.append(lengths)
    shapes = [shape for _, shape in spec.outputs()]
    return site.emit_private(RECURRENCE, *inputs, shapes=shapes, spec=spec.text())


def _bias(site: Site, spec: Recurrence) -> tuple[str, str]:
    """What is added to the product of the inputs, and of the state (GRU alone); [directions, -1].

    Empty where there is none.
    """
    if not site.input(3):
        return "", ""
    wide = spec.gates * spec.size
    of_input = site.slice(site.input(3), 0, wide, 1)
    of_state = site.slice(site.input(3), wide, 2 * wide, 1)

    def filled(value: str) -> str:
        shape = spec.directions, spec.gates, spec.size
        whole = _filled(site, spec, value, shape)
        return site.reshape(whole, (spec.directions, spec.gates * spec.wide))

    if spec.operator == "GRU":
        return filled(of_input), filled(of_state)
    return filled(site.emit("Add", of_input, of_state)), ""


def _filled(site: Site, spec: Recurrence, value: str, shape: tuple[int, ...]) -> str:
    """``value`` in ``shape``, whose third axis is the columns, with zeros for those beyond."""
    whole = site.reshape(value, shape)
    missing = spec.wide - spec.size
    if not missing:
        return whole
    zeros = np.zeros((*shape[:2], missing, *shape[3:]), np.float32)
    return site.emit("Concat", whole, zeros, axis=2)


def _weights(site: Site, spec: Recurrence) -> list[str]:
    """The weights of the state, for each product of a step."""
    shape = spec.directions, spec.gates, spec.size, spec.size
    whole = site.transpose(_filled(site, spec, site.input(2), shape), (0, 1, 3, 2))
    if len(spec.products) == 1:
        return [whole]
    return [site.slice(whole, 0, 2, 1), site.slice(whole, 2, 3, 1)]


def _first(site: Site, spec: Recurrence, position: int) -> str:
    """The state (or the cell) before the first step, [directions, batch, size]."""
    name = site.input(position)
    if not name:
        return site.name(np.zeros((spec.directions, spec.batch, spec.size), np.float32))
    return site.transpose(name, (1, 0, 2)) if site.attribute("layout", 0) else name
