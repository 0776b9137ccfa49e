"""In which layout convolutions pass images on: a choice for each region of a model.

A region is made of the convolutions that are connected by images of one size. Within it nothing is
converted but what has to be; TVM's ConvertLayout puts the conversions where regions meet, and those
are kernels of their own, with a time of their own. Images are channels-last by default: every
channel count fits, and the others only pay where a measurement says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from search_spaces.graph.base import GraphSpace
from search_spaces.graph.expressions import array, is_constant, shape_of
from search_spaces.graph.rewriting import Graph, Rewrite, rewritten
from search_spaces.task import Parameters, ParameterValue, Target

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

CHANNELS_LAST = "NHWC"
CHANNELS_FIRST = "NCHW"
BLOCKED = "NCHWc"
BLOCKS = (8, 16)
"""Channels that lie next to each other in a blocked layout, [N, C / 8, H, W, 8]: one number for a
model, since ConvertLayout cannot turn one such layout into another."""
BLOCK = "block"


class LayoutSpace(GraphSpace):
    """Channels last, first, or in blocks, for each region."""

    name = "graph.layouts"
    order = 40

    def parameters(self, module: Any, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        graph = Graph(module)
        found: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(_layouts(graph, region))
            for name, region in _regions(graph).items()
        }
        if any(BLOCKED in getattr(one, "choices", ()) for one in found.values()):
            found[BLOCK] = CategoricalDistribution(BLOCKS)
        return found

    def default(self, module: Any, target: Target) -> dict[str, ParameterValue]:
        found = self.parameters(module, target)
        block = max((b for b in BLOCKS if b <= target.lanes()), default=BLOCKS[0])
        return {name: block if name == BLOCK else CHANNELS_LAST for name in found}

    def chain(self, module: Any, target: Target) -> list[str]:
        return list(_regions(Graph(module)))

    def apply(self, module: Any, target: Target, parameters: Parameters) -> Any:
        graph = Graph(module)
        chosen: list[tuple[Any, str]] = []
        block = int(parameters.get(BLOCK, BLOCKS[0]))
        for name, region in _regions(graph).items():
            calls = [graph.values[var] for var in region]
            layout = parameters.get(name, CHANNELS_LAST)
            if layout == CHANNELS_FIRST:
                chosen.extend((call, CHANNELS_FIRST) for call in calls if _takes(call, 1))
            elif layout == BLOCKED:
                name = f"{CHANNELS_FIRST}{block}c"
                chosen.extend((call, name) for call in calls if _takes(call, block))
        return _converted(module, chosen) if chosen else module


def _converted(module: Any, chosen: list[tuple[Any, str]]) -> Any:
    """``module`` with the convolutions of ``chosen`` in other layouts, weights laid out as well.

    Their weights become HWIO, which our computation of blocked ones takes, and which tells those
    whose channels come first from the others.
    """

    def wanted(call: Any) -> dict[str, list[str]]:
        if call.op.name != "relax.nn.conv2d":
            return {}
        for other, layout in chosen:
            if other.same_as(call):
                return {"relax.nn.conv2d": [layout, "HWIO"]}
        return {"relax.nn.conv2d": [call.attrs.data_layout, call.attrs.kernel_layout]}

    desired = {"relax.nn.conv2d": [CHANNELS_FIRST, "OIHW"]}
    return _folded(relax.transform.ConvertLayout(desired, wanted)(module))


def _regions(graph: Graph) -> dict[str, list[Any]]:
    """The convolutions of each region, by the name of the first of them, in order."""
    parents: dict[Any, Any] = {}

    def root(var: Any) -> Any:
        while parents.setdefault(var, var) is not var:
            var = parents[var]
        return var

    found: dict[Any, list[Any]] = {}
    for var, value in graph.values.items():
        if not isinstance(value, relax.Call):
            continue
        size = _size(var)
        for arg in value.args:
            parts = arg.fields if isinstance(arg, relax.Tuple) else [arg]
            for part in parts:
                if isinstance(part, relax.Var) and size is not None and _size(part) == size:
                    parents[root(part)] = root(var)
    for var in graph.values:
        call = graph.call(var, "nn.conv2d")
        if call is not None and (call.attrs.data_layout, call.attrs.kernel_layout) == (
            CHANNELS_FIRST, "OIHW",
        ):  # fmt: skip
            found.setdefault(root(var), []).append(var)
    return {str(region[0].name): region for region in found.values()}


def _size(expr: Any) -> tuple[int, int] | None:
    """Height and width of an image."""
    shape = shape_of(expr)
    return (shape[2], shape[3]) if shape is not None and len(shape) == 4 else None


def _layouts(graph: Graph, region: list[Any]) -> list[str]:
    """What a region may be laid out in: in blocks where most of its convolutions can."""
    fitting = sum(_takes(graph.values[var], BLOCKS[0]) for var in region)
    return [CHANNELS_LAST, CHANNELS_FIRST, *[BLOCKED] * (2 * fitting > len(region))]


def _takes(call: Any, block: int) -> bool:
    """Whether a convolution can be computed in blocks of that many channels; 1: channels first."""
    shape = shape_of(call.args[1])
    if shape is None or not is_constant(call.args[1]):
        return False
    return block == 1 or (int(call.attrs.groups) == 1 and shape[0] % block == shape[1] % block == 0)


def _folded(module: Any) -> Any:
    """``module`` with what ConvertLayout does to constants computed: TVM would compile each."""
    graph = Graph(module)
    rewrites: dict[Any, Rewrite] = {}
    for var in graph.values:
        call = graph.call(var, "permute_dims", "layout_transform")
        if call is None or not is_constant(call.args[0]):
            continue
        data, shape = array(call.args[0]), shape_of(var) or []
        if graph.operator(var) == "permute_dims":
            data = np.transpose(data, [int(axis) for axis in call.attrs.axes])
        elif len(shape) == 5 and data.ndim == 4 and shape[1] * shape[4] == data.shape[1]:
            n, blocks, height, width, block = shape
            data = data.reshape(n, blocks, block, height, width).transpose(0, 1, 3, 4, 2)
        else:
            continue
        rewrites[var] = _as_constant(data.copy())
    return rewritten(module, rewrites)


def _as_constant(data: Any) -> Rewrite:
    return lambda emit, see: relax.const(data)
