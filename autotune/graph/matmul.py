"""Matrix products on tensors as they are: drops the reshapes that exporters put around them.

ONNX knows biased products of matrices only (Gemm), so exporters flatten a batch of sequences to a
matrix and restore it after, or go on to something else. The reshapes cost nothing by themselves,
but no operator is fused across them: the activation after the product, or the sum with what the
layer began with, becomes a pass over memory of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tvm
from tvm import relax
from tvm.relax.dpl import is_op, wildcard

from autotune.graph.patterns import rewrite_main
from search_spaces.graph.expressions import shape_of


def drop_reshapes(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrite reshape(matmul(reshape(x), w) [+ b]) to a product on as many axes as there can be.

    Those of ``x`` where only its rows were merged, else those of the result.
    """
    data, weight, bias, shape = wildcard(), wildcard(), wildcard(), wildcard()
    flat = is_op("relax.reshape")(data, wildcard())
    product = is_op("relax.matmul")(flat, weight)
    biased = is_op("relax.add")(product, bias)

    def rewrite(found: Any, matched: Any, has_bias: bool) -> Any:
        x, w = matched[data], matched[weight]
        b = matched[bias] if has_bias else None
        wanted, inner = shape_of(found), shape_of(x)
        columns = shape_of(w)
        if wanted is None or inner is None or columns is None or len(columns) != 2:
            return found
        if b is not None and len(shape_of(b) or [0, 0]) != 1:
            return found
        only_rows = inner[-1] == columns[0]
        rows = inner[:-1] if only_rows else wanted[:-1]
        if len(rows) < 2 or (not only_rows and wanted[-1] != columns[1]):
            return found
        if not only_rows:
            x = relax.op.reshape(x, [*rows, columns[0]])
        made = relax.op.matmul(x, w)
        if b is not None:
            made = relax.op.add(made, b)
        return made if wanted == [*rows, columns[1]] else relax.op.reshape(made, wanted)

    restored = is_op("relax.reshape")
    return rewrite_main(
        module,
        [
            (restored(biased, shape), partial(rewrite, has_bias=True)),
            (restored(product, shape), partial(rewrite, has_bias=False)),
        ],
    )
