"""Models of ONNX Runtime's own operators, as its tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT32, INT8, UINT8 = (
    TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8,
)  # fmt: skip
MICROSOFT = "com.microsoft"
Shape = tuple[int, ...]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(*shape: int, scale: float = 0.5) -> Any:
    return (rng().standard_normal(shape) * scale).astype(np.float32)


def whole(dtype: Any, *shape: int) -> Any:
    limits = np.iinfo(dtype)
    return rng().integers(limits.min, limits.max + 1, shape).astype(dtype)


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
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    sets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    path = folder / "made.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=sets, ir_version=9).SerializeToString())
    return path
