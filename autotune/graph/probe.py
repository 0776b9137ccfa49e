"""One program that computes a model in any mix of precisions: which, is told when it runs.

To try a mix costs a run of it then, and no build. It is float32 by default schedules, with what is
rounded chosen by inputs: beside the real program only the order of sums differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from autotune.frontends.base import ImportedModel, TensorSpec
from search_spaces.graph.expressions import array
from search_spaces.graph.precision import Rounding, roundings, whole_weights
from search_spaces.graph.precision import places as places_of
from search_spaces.graph.products import VIEWS, viewed
from search_spaces.graph.rewriting import Emit, Graph, Rewrite, See, rewritten
from search_spaces.precisions import FULL, HALF, WHOLE, Mix
from search_spaces.task import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    Sample = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """A sum of products: the multiplications and additions of one inference, and its source.

    ``source`` names the tensor that its data is, of so many ``elements``; it is ``shared`` where
    others read it that are no such sums.
    """

    flops: float
    source: str
    elements: int
    shared: bool


class Probe:
    """``imported`` for ``target`` as what may be chosen among ``kinds`` for each of its places."""

    def __init__(self, imported: ImportedModel, target: Target, kinds: Sequence[str]) -> None:
        self.imported, self.target = imported, target
        self.kinds = tuple(kinds)
        module = _laid_out(imported, target)
        graph = Graph(module)
        found = places_of(graph)
        self._sources = {
            name: viewed(graph, graph.value(var).args[0])[0] for name, var in found.items()
        }
        sums = set(found.values())
        self.places = {
            name: _place(graph, graph.value(var), self._sources[name], sums)
            for name, var in found.items()
        }
        self._flags: list[TensorSpec] = []
        self._module = self._flagged(module, graph, found)
        self.ranges: dict[str, tuple[float, float]] = {}
        """The least and the greatest value of each source, as far as they were watched."""

    def watch(self, samples: Sequence[Sample]) -> None:
        """Note the range that the data of each place has on ``samples``."""
        for sample in samples:
            found = self._ran({}, sample)
            for name in {place.source for place in self.places.values()}:
                low, high = (float(found[f"{end} of {name}"]) for end in ("low", "high"))
                before = self.ranges.get(name, (0.0, 0.0))
                self.ranges[name] = min(before[0], low), max(before[1], high)

    def outputs(self, mix: Mix, sample: Sample) -> dict[str, np.ndarray]:
        """What the model makes of ``sample`` in the precision ``mix``."""
        found = self._ran(mix, sample)
        return {spec.name: found[spec.name] for spec in self.imported.outputs}

    def value(self, place: str, kind: str) -> str:
        """``kind`` as a value of the place; whole numbers are of the range that was watched."""
        if kind != WHOLE:
            return kind
        return str(Rounding(WHOLE, *self.ranges[self.places[place].source]))

    def _ran(self, mix: Mix, sample: Sample) -> dict[str, np.ndarray]:
        chosen = {name: Rounding.parse(kind) for name, kind in mix.items() if kind != FULL}
        return self._run({**sample, **self._values(chosen)})

    @cached_property
    def _run(self) -> Callable[[Sample], dict[str, np.ndarray]]:
        from autotune.artifact.build import runnable
        from autotune.graph.pipeline import fused

        made = fused(self.imported, self.target, self._module, {})
        ends = [
            TensorSpec(f"{end} of {name}", (), FULL)
            for name in dict.fromkeys(place.source for place in self.places.values())
            for end in ("low", "high")
        ]
        return runnable(
            replace(
                made,
                inputs=(*self.imported.inputs, *self._flags),
                outputs=(*self.imported.outputs, *ends),
            )
        )

    def _values(self, mix: Mapping[str, Rounding]) -> dict[str, np.ndarray]:
        """The inputs that say so."""
        halves = {
            self.places[name].source
            for name, one in mix.items()
            if one.kind == HALF and not one.alone
        }
        values: dict[str, np.ndarray] = {}
        for spec in self._flags:
            what, _, name = spec.name.partition(" ")
            one = mix.get(name)
            if what == "stored":
                values[spec.name] = np.asarray(name in halves)
            elif what == "step":
                values[spec.name] = np.asarray(one.step if one else 1.0, np.float32)
            elif what == "zero":
                values[spec.name] = np.asarray(one.zero if one else 0.0, np.float32)
            else:
                values[spec.name] = np.asarray(one is not None and one.kind == what)
        return values

    def _flagged(self, module: Any, graph: Graph, found: Mapping[str, Any]) -> Any:
        """``module`` with inputs that choose, and the ranges of sources as further outputs."""
        parameters: list[Any] = []

        def flag(name: str, dtype: str = "bool") -> Any:
            self._flags.append(TensorSpec(name, (), dtype))
            kind = relax.const(np.zeros((), dtype)).ty
            parameters.append(relax.Var(f"flag_{len(parameters)}", kind))
            return parameters[-1]

        rewrites: dict[Any, Rewrite] = {}
        for name, var in found.items():
            flags = {kind: flag(f"{kind} {name}") for kind in self.kinds}
            steps = (
                (flag(f"step {name}", FULL), flag(f"zero {name}", FULL)) if WHOLE in flags else None
            )
            rewrites[var] = _chosen(graph, var, flags, steps)
        sources = {str(source.name): source for source in self._sources.values()}
        if HALF in self.kinds:
            for name, source in sources.items():
                if source in graph.values:
                    rewrites[source] = _stored(
                        graph, source, rewrites.get(source), flag(f"stored {name}")
                    )
        ends = [
            lambda emit, see, source=source, end=end: end(see(source))
            for source in sources.values()
            for end in (relax.op.min, relax.op.max)
        ]
        return rewritten(module, rewrites, parameters, ends)


def _laid_out(imported: ImportedModel, target: Target) -> Any:
    """``imported`` as late graph spaces find it, where the early ones choose by default."""
    from autotune.graph.choices import walk
    from autotune.graph.pipeline import lay_out, simplified

    module, _ = walk(
        simplified(imported, target),
        target,
        lambda space, module: None if space.laid_out else space.default(module, target),
        lay_out,
    )
    return module


def _place(graph: Graph, call: Any, source: Any, sums: set[Any]) -> Place:
    shape = [int(v) for v in call.ty.shape.values]
    weights = [int(v) for v in call.args[1].ty.shape.values]
    flops = 2.0 * float(np.prod(shape)) * float(np.prod(weights[:-1]))
    elements = int(np.prod([int(v) for v in source.ty.shape.values]))
    shared = source in graph.values and not _only_for(graph, source, sums)
    return Place(flops, str(source.name), elements, shared)


def _only_for(graph: Graph, var: Any, sums: set[Any]) -> bool:
    """Whether only ``sums`` read ``var``, as it is or seen otherwise."""
    if any(result is var or result.same_as(var) for result in graph.results):
        return False
    return all(
        user in sums or (graph.operator(user) in VIEWS and _only_for(graph, user, sums))
        for user in graph.users[var]
    )


def _chosen(
    graph: Graph, var: Any, flags: Mapping[str, Any], steps: tuple[Any, Any] | None
) -> Rewrite:
    """The sum in float32, or as the first of ``flags`` that is set says."""

    def rewrite(emit: Emit, see: See) -> Any:
        result = emit(see(graph.values[var]))
        for kind, flag in flags.items():
            if kind == WHOLE:
                assert steps is not None
                other = _whole(graph, var, emit, see, *steps)
            else:
                # No source is rounded for all here: that is a flag of its own.
                other = roundings(graph, {var: Rounding(kind)}, alone=True)[var](emit, see)
            result = emit(relax.op.where(flag, emit(other), result))
        return result

    return rewrite


def _stored(graph: Graph, var: Any, before: Rewrite | None, flag: Any) -> Rewrite:
    """``var``, rounded to bfloat16 for all who read it where that is set."""

    def rewrite(emit: Emit, see: See) -> Any:
        value = emit(see(graph.values[var]) if before is None else before(emit, see))
        short = emit(relax.op.astype(value, HALF))
        return relax.op.where(flag, emit(relax.op.astype(short, FULL)), value)

    return rewrite


def _whole(graph: Graph, var: Any, emit: Emit, see: See, step: Any, zero: Any) -> Any:
    """The sum of whole numbers, as floats: of what step they are is only told when it runs."""
    call = graph.value(var)
    x = emit(relax.op.round(emit(relax.op.divide(see(call.args[0]), step))))
    x = emit(relax.op.clip(emit(relax.op.add(x, zero)), 0, 255))
    x = emit(relax.op.multiply(emit(relax.op.subtract(x, zero)), step))
    weight, scale = whole_weights(array(call.args[1]))
    return relax.Call(call.op, [x, relax.const(weight * scale)], call.attrs, call.ty_args)
