"""ONNX models of a few nodes, with random constants, as tests write them to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Shape = tuple[int, ...]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(*shape: int, scale: float = 0.5) -> Any:
    return (rng().standard_normal(shape) * scale).astype(np.float32)


def whole(dtype: Any, *shape: int) -> Any:
    """Any numbers that ``dtype``, of integers, has."""
    limits = np.iinfo(dtype)
    return rng().integers(limits.min, limits.max + 1, shape).astype(dtype)


def made_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    constants: dict[str, Any],
    outputs: Sequence[str],
    opsets: dict[str, int],
    ir_version: int,
) -> onnx.ModelProto:
    """The model; of its outputs only the names are told."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    sets = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=sets, ir_version=ir_version)
