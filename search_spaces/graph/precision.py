"""In which precision the sums of products of a model are computed.

A place is a convolution or a product with constant weights, by the name of its variable, and its
value one of

- "float32": as it is,
- "bfloat16": data and weights rounded to bfloat16, summed up in float32,
- "bfloat16 alone": the same, while others that read the data (a residual) have it as it was,
- "bfloat16x3": both split into two such numbers, of whose four products the least is left out,
- "int8 LOW HIGH": data between LOW and HIGH in steps of 1/255 of that, weights in 255 steps for
  each column.

The graph only says what is rounded, in operators that every target has. Where the target has an
instruction for such sums they become kernels of it (``autotune.graph.halves``, ``.integers``). By
itself the space offers nothing: what may be chosen is up to the budget of the user
(``autotune.precision``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import tvm
from tvm import relax

from search_spaces.graph.base import GraphSpace
from search_spaces.graph.expressions import array, dtype_of
from search_spaces.graph.products import sum_of_products, view_of, viewed
from search_spaces.graph.rewriting import Emit, Graph, Rewrite, See, rewritten
from search_spaces.precisions import FULL, HALF, HALF_ALONE, SPACE, SPLIT, WHOLE
from search_spaces.task import Parameters, ParameterValue, Target

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST_DEPTH = 8
"""Sums of fewer products are no work for an instruction that adds up several."""


class PrecisionSpace(GraphSpace):
    """Which sums of products are computed of shorter numbers."""

    name = SPACE
    version = 1
    order = -10
    laid_out = True

    def __init__(self, allowed: Mapping[str, str] | None = None) -> None:
        """``allowed`` is what a place may be besides "float32", and is by default."""
        self.allowed = dict(allowed or {})

    def parameters(self, module: Any, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        default = self.default(module, target)
        return {name: CategoricalDistribution((FULL, kind)) for name, kind in default.items()}

    def default(self, module: Any, target: Target) -> dict[str, ParameterValue]:
        if not self.allowed:
            return {}
        here = places(Graph(module))
        return {name: kind for name, kind in self.allowed.items() if name in here}

    def known(self, module: Any, target: Target) -> Collection[str]:
        return places(Graph(module)).keys()

    def apply(self, module: Any, target: Target, parameters: Parameters) -> Any:
        graph = Graph(module)
        kinds = {**self.default(module, target), **parameters}
        chosen = {
            var: Rounding.parse(str(kinds[name]))
            for name, var in places(graph).items()
            if kinds.get(name, FULL) != FULL
        }
        return rewritten(module, roundings(graph, chosen))


def places(graph: Graph) -> dict[str, Any]:
    """The variables whose precision may be chosen, by name."""
    found: dict[str, Any] = {}
    for var in graph.values:
        call = sum_of_products(graph, var)
        if call is None or dtype_of(var) != FULL or dtype_of(call.args[0]) != FULL:
            continue
        *window, depth, columns = (int(v) for v in call.args[1].ty.shape.values)
        if int(np.prod(window)) * depth >= LEAST_DEPTH and columns >= LEAST_DEPTH:
            source, _ = viewed(graph, call.args[0])
            if not _was_short(graph, source):
                found[str(var.name)] = var
    return found


def _was_short(graph: Graph, expr: Any) -> bool:
    """Whether ``expr`` is of shorter numbers already: a model that was given so."""
    for _ in range(3):
        call = graph.call(expr, "astype", "subtract")
        if call is None:
            return False
        expr = call.args[0]
        if dtype_of(expr) != FULL:
            return True
    return False


@dataclass(frozen=True)
class Rounding:
    """One value of a place, ``low`` and ``high`` for whole numbers.

    Data in bfloat16 is rounded for everybody unless that is for the place ``alone``.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    alone: bool = False

    @staticmethod
    def parse(text: str) -> Rounding:
        """Raises ``ValueError`` for what is no such value."""
        if text == HALF_ALONE:
            return Rounding(HALF, alone=True)
        kind, *limits = text.split()
        if kind not in (HALF, SPLIT, WHOLE) or len(limits) != 2 * (kind == WHOLE):
            raise ValueError(f"{text!r} is no precision")
        low, high = map(float, limits or (0, 0))
        return Rounding(kind, low, high)

    def __str__(self) -> str:
        if self.alone:
            return HALF_ALONE
        return f"{self.kind} {self.low!r} {self.high!r}" if self.kind == WHOLE else self.kind

    @property
    def step(self) -> float:
        """Between two whole numbers."""
        return (self.high - self.low) / 255 or 1.0

    @property
    def zero(self) -> int:
        """The whole number that stands for nothing."""
        return int(np.clip(np.rint(-self.low / self.step), 0, 255))


def roundings(
    graph: Graph, chosen: Mapping[Any, Rounding], alone: bool = False
) -> dict[Any, Rewrite]:
    """The rewrites that compute each of the places ``chosen`` as it says.

    What is rounded to bfloat16 is so for everybody who reads it: it is stored in half the bytes.
    But not where places, or all of them, are to stay ``alone``.
    """
    rewrites: dict[Any, Rewrite] = {}
    stored: dict[Any, Any] = {}
    for var, rounding in chosen.items():
        call = graph.value(var)
        source, views = viewed(graph, call.args[0])
        rewrites[var] = _summed(call, source, views, rounding, stored)
    for var, rounding in () if alone else chosen.items():
        source, _ = viewed(graph, graph.value(var).args[0])
        shared = rounding.kind == HALF and not rounding.alone
        if shared and source in graph.values and source not in stored:
            stored[source] = None
            rewrites[source] = _rounded(graph, source, rewrites.get(source), stored)
    return rewrites


def _rounded(graph: Graph, var: Any, before: Rewrite | None, stored: dict[Any, Any]) -> Rewrite:
    def rewrite(emit: Emit, see: See) -> Any:
        value = see(graph.values[var]) if before is None else before(emit, see)
        stored[var] = emit(relax.op.astype(emit(value), HALF))
        return relax.op.astype(stored[var], FULL)

    return rewrite


def _summed(
    call: Any, source: Any, views: Sequence[Any], rounding: Rounding, stored: dict[Any, Any]
) -> Rewrite:
    """``call`` of data that is ``source`` seen through ``views``, rounded."""

    def half(emit: Emit, see: See) -> Any:
        if stored.get(source) is None:
            stored[source] = emit(relax.op.astype(see(source), HALF))
        x = relax.op.astype(view_of(emit, stored[source], list(views)), FULL)
        return _again(call, emit(x), _short(array(call.args[1])))

    def split(emit: Emit, see: See) -> Any:
        x = see(source)
        upper = emit(relax.op.astype(x, HALF))
        rest = emit(relax.op.subtract(x, emit(relax.op.astype(upper, FULL))))
        lower = emit(relax.op.astype(rest, HALF))
        one, other = (view_of(emit, part, list(views)) for part in (upper, lower))
        data = emit(relax.op.concat([one, one, other], axis=-1))
        weight = array(call.args[1])
        high = _short(weight)
        low = _short(weight - high)
        weights = np.concatenate([high, low, high], axis=-2)
        return _again(call, emit(relax.op.astype(data, FULL)), weights)

    def whole(emit: Emit, see: See) -> Any:
        x = emit(relax.op.multiply(see(source), _const(1 / rounding.step)))
        x = emit(relax.op.add(emit(relax.op.round(x)), _const(rounding.zero)))
        x = emit(relax.op.astype(emit(relax.op.clip(x, 0, 255)), "uint8"))
        x = emit(relax.op.astype(view_of(emit, x, list(views)), "int32"))
        if rounding.zero:
            x = emit(relax.op.subtract(x, relax.const(rounding.zero, "int32")))
        weight, scale = whole_weights(array(call.args[1]))
        total = emit(_again(call, emit(relax.op.astype(x, FULL)), weight))
        return relax.op.multiply(total, relax.const(scale * np.float32(rounding.step)))

    makes: dict[str, Callable[[Emit, See], Any]] = {HALF: half, SPLIT: split, WHOLE: whole}
    return makes[rounding.kind]


def whole_weights(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers up to 127, and by what those of each column, the last axis, are multiplied."""
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.float32), scale


def _again(call: Any, data: Any, weight: np.ndarray) -> Any:
    made: tvm.relax.Call = relax.Call(
        call.op, [data, relax.const(weight)], call.attrs, call.ty_args
    )
    return made


def _short(weight: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = weight.astype(ml_dtypes.bfloat16).astype(np.float32)
    return rounded


def _const(value: float) -> Any:
    return relax.const(np.float32(value))
