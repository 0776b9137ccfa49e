"""Sums of products of whole numbers: in 8 bits where the target multiplies those faster.

Exporters write them as floats that happen to be whole (``onnx_rewrites/qdq.py``,
``onnx_rewrites/quantised.py``). The stored numbers are multiplied as they are; what the zero point
of the data adds to each column is known before the model runs. AVX-512 VNNI and AVX-VNNI multiply
four times as many 8-bit numbers as floats at a time, unsigned ones by signed ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from autotune.dtypes import EXACT
from autotune.graph.narrow import filled, summed
from search_spaces.cpu.dot import INTEGER
from search_spaces.graph.expressions import array, dtype_of, is_constant
from search_spaces.graph.grouping import apart
from search_spaces.graph.products import dense
from search_spaces.graph.rewriting import Emit, Graph, Rewrite, See, rewritten
from search_spaces.task import Target

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class _Whole:
    """``source - point``: 8-bit numbers as they are stored, but with their axes in ``order``."""

    source: Any
    point: int
    signed: bool
    order: tuple[int, ...] | None = None

    def seen(self, emit: Emit, see: See) -> Any:
        """The stored numbers in the new function."""
        source = see(self.source)
        return source if self.order is None else emit(relax.op.permute_dims(source, self.order))

    @property
    def largest(self) -> int:
        """The largest magnitude that a number has."""
        low, high = (-128, 127) if self.signed else (0, 255)
        return max(abs(low - self.point), abs(high - self.point))


def integers(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """``module``, laid out, with sums of whole numbers computed as such where that pays.

    Sums in float64 that float32 holds exactly are computed in that.
    """
    graph, lanes = Graph(module), INTEGER.lanes(target)
    rewrites: dict[Any, Rewrite] = {}
    for var in graph.values:
        call = graph.call(var, "nn.conv2d", "matmul")
        if call is None or dtype_of(var) not in FLOATS or not is_constant(call.args[1]):
            continue
        data, weight = _whole(graph, call.args[0]), array(call.args[1])
        if data is None or not np.array_equal(weight, np.clip(np.rint(weight), -128, 127)):
            continue
        if weight.shape[-1] >= (lanes or math.inf) and dense(call):
            rewrites |= _as_integers(graph, var, call, data, weight, target)
        elif dtype_of(var) == "float64" and _largest(call, data, weight) < EXACT:
            rewrites[var] = _as_floats(call, data, weight)
    for var in graph.values:
        if _stored_anew(graph, var):
            rewrites[var] = apart(graph, var)
    return rewritten(module, rewrites)


def _stored_anew(graph: Graph, var: Any) -> bool:
    """Whether ``var`` is where floats become 8-bit numbers.

    They end a kernel: fused to what follows, the steps before would be computed again for each that
    reads them twice (a hard swish), and the compiler never sees the end of a dozen such steps. And
    a quarter of the bytes is written.
    """
    cast = graph.call(var, "astype")
    stored = dtype_of(var) in ("int8", "uint8")
    return cast is not None and stored and dtype_of(cast.args[0]) in FLOATS


def _whole(graph: Graph, expr: Any) -> _Whole | None:
    """What ``expr`` is where it is stored 8-bit numbers less their zero point; else None."""
    point, order = 0, None
    for _ in range(5):
        kind = dtype_of(expr)
        if kind in ("int8", "uint8"):
            return _Whole(expr, point, kind == "int8", order)
        cast = graph.call(expr, "astype")
        turned = graph.call(expr, "permute_dims")
        if turned is not None and turned.attrs.axes is not None and order is None:
            order, expr = tuple(int(axis) for axis in turned.attrs.axes), turned.args[0]
            continue
        shifted = graph.call(expr, "subtract")
        if cast is not None:
            expr = cast.args[0]
        elif shifted is not None and kind == "int32" and not point:
            zero = shifted.args[1]
            if not is_constant(zero) or array(zero).size != 1:
                return None
            point, expr = int(array(zero).reshape(())), shifted.args[0]
        else:
            return None
    return None


def _largest(call: Any, data: _Whole, weight: np.ndarray) -> float:
    """The largest magnitude that a partial sum may have."""
    summed = 0 if call.op.name == "relax.matmul" else (0, 1, 2)
    return float(np.abs(weight).sum(axis=summed).max()) * data.largest


def _as_floats(call: Any, data: _Whole, weight: np.ndarray) -> Rewrite:
    """The same in float32."""

    def rewrite(emit: Emit, see: See) -> Any:
        x = emit(relax.op.astype(data.seen(emit, see), "float32"))
        if data.point:
            x = emit(relax.op.subtract(x, relax.const(float(data.point), "float32")))
        narrow = relax.const(weight.astype(np.float32))
        if call.op.name == "relax.matmul":
            total = relax.op.matmul(x, narrow)
        else:
            total = relax.Call(call.op, [x, narrow], call.attrs, call.ty_args)
        return relax.op.astype(emit(total), "float64")

    return rewrite


def _as_integers(
    graph: Graph, var: Any, call: Any, data: _Whole, weight: np.ndarray, target: Target
) -> dict[Any, Rewrite]:
    """The same in 8 bits, with a whole bias that follows in the same step."""
    columns = weight.shape[-1]
    bias = graph.by_columns(var, "add", columns)
    if bias is not None and not np.array_equal(bias[1], np.clip(np.rint(bias[1]), -EXACT, EXACT)):
        bias = None
    point = data.point + 128 * data.signed
    added = -point * weight.astype(np.int64).reshape(-1, columns).sum(axis=0)
    if bias is not None:
        added = added + bias[1].astype(np.int64)
    kernel = filled(weight.astype(np.int8), INTEGER, target)
    dtype = dtype_of(var)

    def rewrite(emit: Emit, see: See) -> Any:
        x = data.seen(emit, see)
        if data.signed:
            wide = relax.op.add(relax.op.astype(x, "int16"), relax.const(128, "int16"))
            x = emit(relax.op.astype(emit(wide), "uint8"))
        total = emit(summed(emit.builder, call, x, kernel, columns, INTEGER, point))
        if added.any():
            total = emit(relax.op.add(total, relax.const(added.astype(np.int32))))
        return relax.op.astype(total, dtype)

    return {var if bias is None else bias[0]: rewrite}
