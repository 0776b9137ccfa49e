"""Which operator of a model is the first that computes something else once it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 1 << 30
"""Bytes of all results together, above which nobody looks."""


def first_difference(proto: Any, inputs: Mapping[str, Any], import_one: Any) -> str:
    """The operator, with its place and its result: "Resize up (y)"; empty where none is found.

    Every result of ``proto``, whose shapes are fixed, becomes an output. ``import_one`` makes an
    ``ImportedModel`` of that model, which is run unfused, beside the original. The first whose own
    inputs agree and whose results do not is the one.
    """
    from autotune.errors import ModelError
    from autotune.frontends.onnx_reference import run_bytes
    from autotune.frontends.verify import TOLERANCE, naive_build, scaled_error

    shown = _with_every_result(proto)
    if shown is None:
        return ""
    try:
        imported = import_one(shown)
        expected = run_bytes(shown, inputs)
        actual = naive_build(imported)(inputs)
    except ModelError:
        return ""
    except Exception:  # of the reference, which need not run what it gave before in another form
        return ""
    for node in proto.graph.node:
        for name in node.output:
            if name not in expected or name not in actual:
                continue
            if scaled_error(expected[name], actual[name]) > TOLERANCE:
                label = f" {node.name}" if node.name else ""
                return f"{node.op_type}{label}, with its result {name}"
    return ""


def _with_every_result(proto: Any) -> Any:
    """A copy of ``proto`` with all results as outputs; None where they are too many."""
    import numpy as np
    from onnx import helper, shape_inference

    try:
        inferred = shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # C++ that raises as it likes
        return None
    known = {value.name: value for value in inferred.graph.value_info}
    own = {value.name for value in proto.graph.output}
    copy = type(proto)()
    copy.CopyFrom(proto)
    total = 0
    for node in proto.graph.node:
        for name in node.output:
            value = known.get(name)
            if not name or name in own or value is None:
                continue
            kind = value.type.tensor_type
            if not kind.HasField("shape") or not all(d.dim_value for d in kind.shape.dim):
                continue
            try:
                item = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
            except (KeyError, TypeError):
                continue
            total += item * int(np.prod([d.dim_value for d in kind.shape.dim], dtype=np.int64))
            copy.graph.output.append(value)
    return copy if total <= LARGEST else None
