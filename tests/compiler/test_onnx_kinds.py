"""Models of every opset and of other numbers than float32, as exporters write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.frontends import import_model, verify_import

node = helper.make_node
OPSETS = [7, 9, 11, 13, 17, 21, 24, onnx.defs.onnx_opset_version()]


def normal(*shape: int) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) * 0.3).astype(np.float32)


def small(opset: int) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """A convolution, pooling and a layer, with what the opset has attributes or inputs for."""
    squeeze = ["g"] if opset < 13 else ["g", "axes"]
    constants = {"w": normal(4, 3, 3, 3), "v": normal(4, 5), "b": normal(5)}
    if opset >= 13:
        constants["axes"] = np.array([2, 3])
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c"], ["r"], alpha=0.1),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["g"]),
        node("Squeeze", squeeze, ["s"], **({"axes": [2, 3]} if opset < 13 else {})),
        node("Gemm", ["s", "v", "b"], ["l"]),
        node("Softmax", ["l"], ["y"], axis=1),
    ]
    return nodes, constants


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    opset: int,
    kind: int = TensorProto.FLOAT,
    shape: tuple[int, ...] = (1, 3, 8, 8),
    listed: bool = False,
) -> Path:
    """The model file; with ``listed`` the weights are inputs as well, as before IR version 4."""
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in constants.items()
    ]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(
        nodes, "made", inputs, [helper.make_tensor_value_info("y", kind, None)], tensors
    )
    version = 3 if listed else min(helper.find_min_ir_version_for(
        [helper.make_opsetid("", opset)], ignore_unknown=True), 13)  # fmt: skip
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version
    )
    path = folder / "made.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(proto), path)
    return path


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(tmp_path: Path, opset: int) -> None:
    nodes, constants = small(opset)
    model = import_model(saved(tmp_path, nodes, constants, opset))
    assert model.stage == "simplified"
    assert verify_import(model).error < 1e-5


def test_weights_that_are_inputs_too(tmp_path: Path) -> None:
    nodes, constants = small(8)
    model = import_model(saved(tmp_path, nodes, constants, 8, listed=True))
    assert [spec.name for spec in model.inputs] == ["x"]
    assert verify_import(model).error < 1e-5


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE], ids=["half", "double"])
def test_other_floats(tmp_path: Path, kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes, constants = small(17)
    cast = {n: v.astype(dtype) if v.dtype == np.float32 else v for n, v in constants.items()}
    model = import_model(saved(tmp_path, nodes, cast, 17, kind))
    assert model.inputs[0].dtype == model.outputs[0].dtype == dtype.name
    check = verify_import(model)
    assert check.error < check.tolerance


def test_bfloat16_inside(tmp_path: Path) -> None:
    """Exported with weights in bfloat16, inputs and outputs in float32."""
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, (8, 4), normal(8, 4).reshape(-1))
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        node("MatMul", ["h", "w"], ["m"]),
        node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    path = saved(tmp_path, nodes, {"w": weight}, 17, shape=(2, 8))
    check = verify_import(import_model(path))
    assert check.error < check.tolerance


def test_quantise_and_dequantise_pairs(tmp_path: Path) -> None:
    """Weights in 8 bits, one scale for each output channel, activations quantised and restored."""
    constants = {
        "s": np.float32(0.02),
        "z": np.int8(5),
        "w": np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "ws": np.abs(normal(4)) / 50 + np.float32(0.001),
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        node("Conv", ["d", "dw"], ["y"], pads=[1, 1, 1, 1]),
    ]
    check = verify_import(import_model(saved(tmp_path, nodes, constants, 13)))
    assert check.error < check.tolerance


def test_inputs_left_out(tmp_path: Path) -> None:
    constants = {"s": np.array([1, 3, 4, 12]), "high": np.float32(0.4)}
    nodes = [
        node("Resize", ["x", "", "", "s"], ["r"], mode="nearest"),
        node("Clip", ["r", "", "high"], ["y"]),
    ]
    model = import_model(saved(tmp_path, nodes, constants, 19))
    assert model.outputs[0].shape == (1, 3, 4, 12)
    assert verify_import(model).error < 1e-5
