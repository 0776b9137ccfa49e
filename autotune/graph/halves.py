"""Sums of products of bfloat16 numbers: with an instruction for them where the target has one.

They are found as what they are in the graph, sums of floats that were bfloat16 before or are such
numbers: whoever wrote that model, or chose that precision (``search_spaces.graph.precision``).
Their bits are then held in integers of 16 bits, which is what the instruction is given
(``search_spaces.cpu.dot``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tvm
from tvm import relax, te, tirx, topi

from autotune.graph.narrow import filled, summed
from search_spaces.cpu.dot import BFLOAT16
from search_spaces.graph.expressions import array, dtype_of
from search_spaces.graph.grouping import kept_apart
from search_spaces.graph.products import VIEWS, sum_of_products, view_of, viewed
from search_spaces.graph.rewriting import Emit, Graph, Rewrite, See, rewritten
from search_spaces.task import Target

SHORT, WIDE = "bfloat16", "float32"

MOVES = ("concat", *VIEWS)
"""Operators that make numbers of such, whatever these are."""


def halves(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """``module``, laid out, with sums of bfloat16 numbers computed as such where that pays.

    Where floats become such numbers a kernel ends: half the bytes are written.
    """
    lanes = BFLOAT16.lanes(target)
    graph = Graph(module)
    edges = _edges(graph) if lanes else set()
    rewrites: dict[Any, Rewrite] = {}
    for var in graph.values if lanes else ():
        call = sum_of_products(graph, var)
        if call is None or dtype_of(var) != WIDE:
            continue
        data, weight = _stored(graph, call.args[0]), array(call.args[1])
        if data is None or weight.shape[-1] < lanes:
            continue
        short = weight.astype(ml_dtypes.bfloat16)
        if np.array_equal(short.astype(np.float32), weight):
            kernel = filled(short.view(np.uint16), BFLOAT16, target)
            rewrites[var] = _as_halves(call, data, kernel, data[0] in edges)
    if not rewrites or not _only_stored(graph):
        return module
    for var in graph.values:
        cast = graph.call(var, "astype")
        if var in edges or (cast is not None and cast.args[0] in edges):
            continue
        if cast is not None and dtype_of(var) == SHORT:
            rewrites[var] = _cast(cast, rounded, SHORT)
        elif cast is not None and dtype_of(cast.args[0]) == SHORT:
            rewrites[var] = _cast(cast, widened, WIDE)
        if dtype_of(var) == SHORT and not _only_parts(graph, var):
            rewrites[var] = _cut(rewrites.get(var) or _same(graph, var))
    return rewritten(module, rewrites)


def _edges(graph: Graph) -> set[Any]:
    """The bfloat16 numbers that stay what they are: those that come in and go out, however seen.

    A sum of them gets the bits of what they are as floats.
    """
    given = [var for var in graph.users if var not in graph.values]
    open_ends = [var for var in (*given, *graph.results) if dtype_of(var) == SHORT]
    found: set[Any] = set()
    while open_ends:
        var = open_ends.pop()
        if var in found or dtype_of(var) != SHORT:
            continue
        found.add(var)
        open_ends += [u for u in graph.users.get(var, ()) if graph.operator(u) in MOVES]
        if graph.operator(var) in MOVES:
            value = graph.value(var)
            read = [f for arg in value.args for f in getattr(arg, "fields", (arg,))]
            open_ends += [one for one in read if isinstance(one, relax.Var)]
    return found


def _only_parts(graph: Graph, var: Any) -> bool:
    """Whether all that is made of ``var`` is one tensor of several: that is where its kernel ends,
    or that it is seen otherwise."""
    users = graph.users[var]
    whole = [user for user in users if graph.operator(user) in MOVES]
    return bool(whole) and (len(whole) == len(users) or graph.operator(whole[-1]) == "concat")


def _only_stored(graph: Graph) -> bool:
    """Whether nothing is done to bfloat16 numbers but that they are made of floats, moved, and made
    floats again: then any 16 bits will do."""
    for var, value in graph.values.items():
        reads = getattr(value, "args", ())
        tuples = [field for arg in reads for field in getattr(arg, "fields", ())]
        short = dtype_of(var) == SHORT or any(dtype_of(e) == SHORT for e in (*reads, *tuples))
        if short and graph.operator(var) not in ("astype", *MOVES):
            return False
        between = {dtype_of(var), *map(dtype_of, reads)}
        if short and graph.operator(var) == "astype" and between != {SHORT, WIDE}:
            return False
    return True


def _stored(graph: Graph, expr: Any) -> tuple[Any, list[Any]] | None:
    """The bfloat16 numbers that ``expr`` is, and how they are seen; None where it is none such."""
    expr, after = viewed(graph, expr)
    cast = graph.call(expr, "astype")
    if cast is None or dtype_of(cast.args[0]) != SHORT:
        return None
    return cast.args[0], after


def _as_halves(call: Any, data: tuple[Any, list[Any]], kernel: np.ndarray, edge: bool) -> Rewrite:
    columns = int(call.args[1].ty.shape.values[-1])

    def rewrite(emit: Emit, see: See) -> Any:
        source = see(data[0])
        if edge:
            wide = emit(relax.op.astype(source, WIDE))
            source = emit(emit.builder.call_te(rounded, wide, primfunc_name_hint=SHORT))
        x = view_of(emit, source, data[1])
        return summed(emit.builder, call, x, kernel, columns, BFLOAT16)

    return rewrite


def _cast(cast: Any, by: Callable[[te.Tensor], te.Tensor], name: str) -> Rewrite:
    def rewrite(emit: Emit, see: See) -> Any:
        return emit.builder.call_te(by, see(cast.args[0]), primfunc_name_hint=name)

    return rewrite


def _same(graph: Graph, var: Any) -> Rewrite:
    return lambda emit, see: see(graph.values[var])


def _cut(make: Rewrite) -> Rewrite:
    return lambda emit, see: kept_apart(emit(make(emit, see)))


def rounded(x: te.Tensor) -> te.Tensor:
    """The bits of the bfloat16 next to each float32, the even one of two that are as near."""

    def bits(*index: Any) -> Any:
        value = x[index]
        given = tirx.reinterpret("uint32", value)
        odd = (given >> tirx.const(16, "uint32")) & tirx.const(1, "uint32")
        upper = (given + odd + tirx.const(0x7FFF, "uint32")) >> tirx.const(16, "uint32")
        nan = tirx.const(0x7FC0, "uint32")
        return tirx.Select(tirx.isnan(value), nan, upper).astype("uint16")

    return te.compute(x.shape, bits, name="bfloat16_round", tag=topi.tag.ELEMWISE)


def widened(x: te.Tensor) -> te.Tensor:
    """The float32 of each bfloat16, by its bits."""
    return te.compute(
        x.shape,
        lambda *i: BFLOAT16.widen(x[i]),
        name="bfloat16_widen",
        tag=topi.tag.ELEMWISE,
    )
