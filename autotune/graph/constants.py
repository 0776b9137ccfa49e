"""Constants of a Relax module as numpy arrays, and folding of what is made of constants alone.

TVM's own FoldConstant compiles each operator that it folds: seconds for a model whose biases are
all reshaped. The operators that exporters leave between a weight and its use are few, and
numpy computes them at once; FoldConstant runs afterwards for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from search_spaces.graph.expressions import array, is_constant, mapped, shape_of


def _axes(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(int(axis) for axis in value)


def _reshape(call: Any, data: np.ndarray) -> np.ndarray:
    return data.reshape([int(v) for v in call.ty.shape.values])


def _divide(call: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.asarray(x / y)
    # Integers are divided towards zero, as in C and ONNX; numpy rounds down.
    quotient = x // y
    return np.asarray(quotient + ((x % y != 0) & ((x < 0) != (y < 0))).astype(quotient.dtype))


_FOLDERS: dict[str, Callable[..., np.ndarray]] = {
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": lambda call, x: np.transpose(x, _axes(call.attrs.axes)),
    "relax.broadcast_to": lambda call, x: np.broadcast_to(
        x, [int(v) for v in call.ty.shape.values]
    ),
    "relax.astype": lambda call, x: x.astype(str(call.attrs.dtype)),
    "relax.add": lambda call, x, y: x + y,
    "relax.subtract": lambda call, x, y: x - y,
    "relax.multiply": lambda call, x, y: x * y,
    "relax.divide": _divide,
    "relax.sqrt": lambda call, x: np.sqrt(x),
    "relax.rsqrt": lambda call, x: 1 / np.sqrt(x),
    "relax.negative": lambda call, x: -x,
    "relax.isnan": lambda call, x: np.isnan(x),
    "relax.where": lambda call, c, x, y: np.asarray(np.where(c, x, y)),
}
NUMPY_DTYPES = frozenset(
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]
)
"""What numpy has a type of its own for."""


def fold_constants(module: tvm.IRModule) -> tvm.IRModule:
    """Replace calls on constants alone by their value, in Relax "main"."""
    main = module["main"]
    known: dict[Any, Any] = {}

    def lookup(expr: Any) -> Any:
        return known.get(expr, expr)

    def evaluate(call: Any) -> Any:
        folder = _FOLDERS.get(call.op.name) if isinstance(call.op, tvm.ir.Op) else None
        if folder is None:
            return None
        args = [lookup(arg) for arg in call.args]
        tensors = [arg for arg in args if not isinstance(arg, relax.ShapeExpr)]
        if not tensors or not all(is_constant(arg) for arg in tensors) or shape_of(call) is None:
            return None
        if str(call.ty.dtype) not in NUMPY_DTYPES:
            return None
        with np.errstate(all="ignore"):
            value = np.asarray(folder(call, *[array(arg) for arg in tensors]))
        return relax.const(np.ascontiguousarray(value).reshape(value.shape), str(call.ty.dtype))

    blocks = []
    for block in main.body.blocks:
        bindings = []
        for binding in block.bindings:
            value = binding.value
            folded = evaluate(value) if isinstance(value, relax.Call) else None
            if folded is None and is_constant(value):
                folded = value
            if folded is not None and isinstance(binding.var, relax.DataflowVar):
                known[binding.var] = folded
                continue
            if isinstance(binding, relax.VarBinding):
                binding = relax.VarBinding(binding.var, mapped(value, lookup))
            bindings.append(binding)
        blocks.append(type(block)(bindings))
    body = relax.SeqExpr(blocks, mapped(main.body.body, lookup))
    made = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    result = module.clone()
    result.update_func(module.get_global_var("main"), made)
    return relax.transform.Normalize()(result)
