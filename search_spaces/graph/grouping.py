"""Operators that become one kernel because a graph space says so, or stay apart.

What becomes one is moved to a private function with attribute "Primitive": TVM fuses nothing into
such a function or out of it, and turns it into a single PrimFunc. What stays apart has a call of
nothing in between, which TVM knows nothing of, and which is taken out after operators were fused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import relax

from search_spaces.cpu.structure import LEAST_VECTOR
from search_spaces.graph.expressions import dtype_of, is_constant, mapped, shape_of
from search_spaces.graph.origins import joined_names, with_names
from search_spaces.graph.rewriting import Emit, Graph, Rewrite, See, rewritten

ELEMENTWISE = (
    "abs",
    "add",
    "clip",
    "divide",
    "erf",
    "exp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nn.leakyrelu",
    "nn.relu",
    "nn.relu6",
    "nn.silu",
    "sigmoid",
    "sqrt",
    "subtract",
    "tanh",
)
"""Operators that compute each element from those in its place, by their names without "relax."."""

_APART = "autotune.apart"


def as_one_kernel(
    graph: Graph,
    members: Sequence[Any],
    name: str,
    instead: Mapping[Any, Rewrite] | None = None,
) -> Rewrite:
    """The rewrite of the last of ``members``: a call of a function that computes all of them.

    ``members`` are variables of ``graph``, each after what it reads. What somebody else reads of
    them is computed there once more. ``instead`` makes the values of some of them anew, inside of
    the function. ``name`` becomes that of the kernel.
    """

    def rewrite(emit: Emit, see: See) -> Any:
        outside = _read(graph, members)
        parameters = [relax.Var(f"p{i}", expr.ty) for i, expr in enumerate(outside)]
        inside: dict[Any, Any] = dict(zip(outside, parameters, strict=True))
        builder = relax.BlockBuilder()
        within = Emit(builder)

        def value(var: Any) -> Any:
            if instead is not None and var in instead:
                return instead[var](within, seen)
            return seen(graph.values[var])

        def seen(expr: Any) -> Any:
            return mapped(expr, lambda leaf: inside.get(leaf, leaf))

        with builder.function(name, parameters, attrs={"Primitive": True}, private=True):
            with builder.dataflow():
                for var in members[:-1]:
                    inside[var] = builder.emit(value(var), var.name)
                result = builder.emit_output(value(members[-1]))
            builder.emit_func_output(result)
        made = emit.add(builder.get()[name], name)
        names = joined_names(graph.values[var] for var in members)
        return with_names(relax.Call(made, [see(expr) for expr in outside]), names)

    return rewrite


def _read(graph: Graph, members: Sequence[Any]) -> list[Any]:
    """The variables and tensors of weights that ``members`` read of others, in order."""
    own = set(members)
    found: dict[Any, None] = {}

    def note(leaf: Any) -> Any:
        weight = is_constant(leaf) and shape_of(leaf) != []
        if weight or (isinstance(leaf, relax.Var) and leaf not in own):
            found[leaf] = None
        return leaf

    for var in members:
        mapped(graph.values[var], note)
    return list(found)


def convolution(graph: Graph, expr: Any) -> Any:
    """The call of a convolution that may be part of a kernel; None for anything else.

    Its images have the channels last, its weights are constants. They are not filled up to whole
    vectors, as where it stands alone: so its channels have to be multiples of a short one.
    """
    call = graph.call(expr, "nn.conv2d")
    if call is None or call.attrs.data_layout != "NHWC" or call.attrs.kernel_layout != "HWIO":
        return None
    if not is_constant(call.args[1]) or dtype_of(expr) != "float32":
        return None
    return None if (shape_of(expr) or [1])[-1] % LEAST_VECTOR else call


def followers(graph: Graph, var: Any) -> list[Any]:
    """What follows ``var`` element by element, up to the one tensor that others read, in order.

    It may read other tensors as well.
    """
    shape, dtype = shape_of(var), dtype_of(var)
    chain: list[Any] = []
    inside = {var}
    best = 0
    order = list(graph.values)
    for later in order[order.index(var) + 1 :]:
        call = graph.call(later, *ELEMENTWISE)
        reads = [] if call is None else [arg for arg in call.args if isinstance(arg, relax.Var)]
        if call is None or not any(arg in inside for arg in reads) or shape_of(later) != shape:
            continue
        if dtype_of(later) != dtype:
            continue
        chain.append(later)
        inside.add(later)
        hidden = inside - {later}
        closed = all(user in inside for one in hidden for user in graph.users[one])
        if closed and not hidden & graph.results:
            best = len(chain)
    return chain[:best]


def apart(graph: Graph, var: Any) -> Rewrite:
    """The rewrite that keeps whatever reads ``var`` out of the kernel that computes it."""

    def rewrite(emit: Emit, see: See) -> Any:
        return kept_apart(emit(see(graph.values[var])))

    return rewrite


def kept_apart(made: Any) -> Any:
    """``made``, a variable, for whoever shall not be in the kernel that computes it."""
    return relax.op.call_pure_packed(_APART, made, ty_args=made.ty)


def joined(module: tvm.IRModule) -> tvm.IRModule:
    """``module``, fused, without what kept operators apart."""
    graph = Graph(module)
    rewrites: dict[Any, Rewrite] = {}
    for var in graph.values:
        call = graph.call(var, "call_pure_packed")
        if call is not None and getattr(call.args[0], "global_symbol", "") == _APART:
            rewrites[var] = _as_it_is(call.args[1])
    if not rewrites:
        return module
    return relax.transform.CanonicalizeBindings()(rewritten(module, rewrites))


def _as_it_is(source: Any) -> Rewrite:
    return lambda emit, see: see(source)
