"""Graph spaces whose choices are places, each of them rewritten or not."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

from search_spaces.graph.base import GraphSpace
from search_spaces.graph.expressions import array, is_constant, mapped, shape_of, variables_of
from search_spaces.graph.origins import NamingBuilder, names_of
from search_spaces.task import Parameters, ParameterValue, Target

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

See = Callable[[Any], Any]
"""An expression of the old function in the new one."""


class Emit:
    """Binds an expression and returns the variable."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder

    def __call__(self, expr: Any) -> Any:
        return self.builder.emit(expr, "made")

    def add(self, function: relax.Function, name: str) -> Any:
        """Bring a function into the module; returns how it is called."""
        return self.builder.add_func(function, name)


Rewrite = Callable[[Emit, See], Any]
"""Makes what takes the place of a binding's value."""


class Graph:
    """The bindings of "main": what each variable is, and who reads it."""

    def __init__(self, module: tvm.IRModule) -> None:
        main = module["main"]
        self.values: dict[Any, Any] = {
            binding.var: binding.value for block in main.body.blocks for binding in block.bindings
        }
        self.users: dict[Any, list[Any]] = {var: [] for var in self.values}
        self.results = set(variables_of(main.body.body))
        """What "main" returns."""
        for var, value in self.values.items():
            for read in variables_of(value):
                self.users.setdefault(read, []).append(var)

    def value(self, expr: Any) -> Any:
        """What is bound to ``expr``, if it is a variable of "main"; else itself."""
        return self.values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def operator(self, expr: Any) -> str:
        """The name, without "relax.", of the operator that ``expr`` calls; "" for anything else."""
        value = self.value(expr)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            return str(value.op.name).removeprefix("relax.")
        return ""

    def call(self, expr: Any, *names: str) -> Any:
        """The call of one of the operators ``names`` that ``expr`` is; None for anything else."""
        return self.value(expr) if self.operator(expr) in names else None

    def by_columns(self, var: Any, name: str, columns: int) -> tuple[Any, Any] | None:
        """The only user of ``var`` and its other operand, in numpy.

        Where the user is operator ``name`` of two operands, and the other is a constant with one
        value for each of the ``columns`` of the last axis; else None.
        """
        user = self.only_user(var)
        call = None if user is None else self.call(user, name)
        if call is None:
            return None
        for one, other in (call.args, tuple(call.args)[::-1]):
            shape = shape_of(other)
            per_column = shape is not None and shape[-1:] == [columns] == [math.prod(shape)]
            if per_column and one.same_as(var) and is_constant(other):
                return user, array(other).reshape(columns)
        return None

    def only_user(self, var: Any) -> Any:
        """The one binding that reads ``var``; None where there are others, or it is a result."""
        users = self.users.get(var, [])
        return users[0] if len(users) == 1 and var not in self.results else None


def rewritten(
    module: tvm.IRModule,
    rewrites: Mapping[Any, Rewrite],
    parameters: Sequence[Any] = (),
    results: Sequence[Rewrite] = (),
) -> tvm.IRModule:
    """``module`` with the values of some variables of "main" made anew; nothing dead is left.

    ``parameters`` are further ones of "main", which the rewrites may read, and ``results`` make
    further results.
    """
    if not (rewrites or parameters or results):
        return module
    main = module["main"]
    others = {v: f for v, f in module.functions_items() if v.name_hint != "main"}
    builder = NamingBuilder(tvm.IRModule(others, attrs=module.attrs))
    known: dict[Any, Any] = {}

    def see(expr: Any) -> Any:
        return mapped(expr, lambda leaf: known.get(leaf, leaf))

    emit = Emit(builder)
    inputs = [*main.params, *parameters]
    with builder.function("main", inputs, attrs=dict(main.attrs or {})):
        with builder.dataflow():
            for block in main.body.blocks:
                for binding in block.bindings:
                    rewrite = rewrites.get(binding.var)
                    builder.origin = names_of(binding.value)
                    value = see(binding.value) if rewrite is None else rewrite(emit, see)
                    known[binding.var] = builder.emit(value, binding.var.name)
            result = see(main.body.body)
            if results:
                fields = result.fields if isinstance(result, relax.Tuple) else [result]
                if isinstance(main.body.body.ty, tvm.ir.TupleType) and len(fields) == 1:
                    raise ValueError("results are added to a tuple of results only")
                made = [emit(make(emit, see)) for make in results]
                result = relax.Tuple([*fields, *made])
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination()(builder.get())


@dataclass(frozen=True)
class Place:
    """Somewhere that a graph can be rewritten: by the variable whose value is made anew, how.

    ``kind`` is what it is called where it is chosen, "" for the name of its variable: places of a
    kind are chosen alike. ``pays`` is whether it is rewritten by default.
    """

    rewrites: Mapping[Any, Rewrite]
    kind: str = ""
    pays: bool = True


class Places(GraphSpace):
    """A space that finds places, and rewrites those that are chosen."""

    @abstractmethod
    def places(self, graph: Graph, target: Target) -> dict[Any, Place]:
        """Places by the variable that names them. They do not overlap."""

    def _named(self, module: Any, target: Target) -> list[tuple[str, Place]]:
        found = self.places(Graph(module), target)
        return [(place.kind or str(var.name), place) for var, place in found.items()]

    def parameters(self, module: Any, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        either = CategoricalDistribution((False, True))
        return {name: either for name, _ in self._named(module, target)}

    def default(self, module: Any, target: Target) -> dict[str, ParameterValue]:
        return {name: place.pays for name, place in self._named(module, target)}

    def apply(self, module: Any, target: Target, parameters: Parameters) -> Any:
        chosen: dict[Any, Rewrite] = {}
        for name, place in self._named(module, target):
            if parameters.get(name, place.pays):
                chosen.update(place.rewrites)
        return rewritten(module, chosen)
