"""Models of ONNX Runtime's own operators, as its tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from autotune.frontends.onnx_contrib import lowered
from tests.compiler.onnx_written import Shape, made_of

FLOAT, INT32, INT8, UINT8 = (
    TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8,
)  # fmt: skip
MICROSOFT = "com.microsoft"


def node(operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> Any:
    """Of ONNX Runtime's domain; the one output is called y unless told."""
    made = helper.make_node(operator, inputs, outputs or ["y"], **attributes)
    made.domain = MICROSOFT
    return made


def written(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    constants: dict[str, Any],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> Path:
    opsets = {"": opset, MICROSOFT: 1}
    proto = made_of(nodes, inputs, constants, outputs, opsets, ir_version=9)
    path = folder / "made.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def agreement(path: Path) -> float:
    """How far the model in operators of the standard is from the original, by ONNX Runtime.

    As a share of the largest value, on random inputs and on large ones; no compiler is asked.
    """
    proto = onnx.load(path)
    made, done, _ = lowered(proto)
    assert done and {n.domain for n in made.graph.node} <= {"", "ai.onnx"}
    drawn = np.random.default_rng(3)
    worst = 0.0
    for size in (1.0, 8.0):
        inputs = {value.name: given(value, drawn, size) for value in proto.graph.input}
        right, found = (run(one, inputs) for one in (proto, made))
        for one, other in zip(right, found, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype
            apart = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)
            whole = one.dtype in (np.uint8, np.int8)
            if whole:
                assert apart <= 1, f"{apart} steps"
                # One of a few may lie on an edge.
                apart = max(0, (one != other).sum() - 1) / one.size
            worst = max(worst, apart if whole else apart / (np.abs(one).max(initial=0) or 1))
    return float(worst)


def given(value: onnx.ValueInfoProto, drawn: np.random.Generator, size: float) -> Any:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    shape = [dim.dim_value for dim in kind.shape.dim]
    if dtype.kind == "f":
        return np.asarray(drawn.uniform(-size, size, shape), dtype)
    bits = dtype.itemsize > 1 or dtype.kind == "b"
    limits = (0, 2) if bits else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return np.asarray(drawn.integers(*limits, shape), dtype)


def run(proto: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    """By ONNX Runtime, as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    found: list[Any] = session.run(None, inputs)
    return found
