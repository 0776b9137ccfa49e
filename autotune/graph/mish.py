"""Mish, x tanh(log(1 + exp x)), without logarithm and tangent.

With n = exp(x) (exp(x) + 2) it is x n / (n + 2): one function of the exponential instead of three
inside each other, each of which would repeat what is inside of it (Misra, "Mish: a self regularized
non-monotonic activation function", 2020, gives the definition).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.dpl import is_op, wildcard

from autotune.graph.patterns import rewrite_main
from search_spaces.graph.expressions import array, is_constant

LARGE = 20.0
"""Above this mish is x to the last bit, and below it nothing overflows."""


def simplify_mish(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrite mish as exporters spell it out, float32 only."""
    x, one = wildcard(), wildcard()
    grown = is_op("relax.log")(is_op("relax.add")(is_op("relax.exp")(x), one))

    def rewrite(found: Any, matched: Any, spelled_out: bool) -> Any:
        value = matched[x]
        if str(value.ty.dtype) != "float32":
            return found
        if spelled_out and not (is_constant(matched[one]) and np.all(array(matched[one]) == 1)):
            return found
        two = relax.const(2.0, "float32")
        e = relax.op.exp(relax.op.minimum(value, relax.const(LARGE, "float32")))
        n = relax.op.multiply(e, relax.op.add(e, two))
        return relax.op.multiply(value, relax.op.divide(n, relax.op.add(n, two)))

    def times_tanh_of(softplus: Any) -> Any:
        return is_op("relax.multiply")(x, is_op("relax.tanh")(softplus))

    return rewrite_main(
        module,
        [
            (times_tanh_of(grown), partial(rewrite, spelled_out=True)),
            (times_tanh_of(is_op("relax.nn.softplus")(x)), partial(rewrite, spelled_out=False)),
        ],
    )
