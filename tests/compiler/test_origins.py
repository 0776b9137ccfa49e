"""Each kernel knows the operators of the original model it is for, and nothing depends on that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from autotune.frontends import import_model
from autotune.frontends.onnx_names import original_names
from autotune.graph.origins import kernel_calls
from autotune.graph.pipeline import optimise
from autotune.target import native

RNG = np.random.default_rng(0)


def network(path: Path, names: bool = True, prefix: str = "") -> Path:
    """Two equal layers of convolution, normalisation and ReLU, a sum, a pool, and a product."""
    tensors, nodes = [], []

    def weight(name: str, *shape: int, ones: bool = False) -> str:
        value = np.ones(shape) if ones else RNG.normal(size=shape)
        tensors.append(numpy_helper.from_array(value.astype("float32"), name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"{prefix}{output}/{operator}" if names else ""
        nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    value = "x"
    for layer in ("one", "two"):
        made = node("Conv", [value, weight(f"{layer}.w", 8, 8, 3, 3)], f"{layer}.c", pads=[1] * 4)
        norm = [weight(f"{layer}.{part}", 8, ones=True) for part in ("g", "b", "m", "v")]
        made = node("BatchNormalization", [made, *norm], f"{layer}.n")
        value = node("Relu", [made], f"{layer}.r")
    value = node("Add", [value, "x"], "sum")
    value = node("GlobalAveragePool", [value], "pool")
    value = node("Flatten", [value], "flat")
    value = node("Gemm", [value, weight("w", 8, 4), weight("bias", 4)], "y")
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 8, 12, 12])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "network", [shape], [result], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


def calls_of(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    return kernel_calls(optimise(import_model(path), native(1)).module)


def test_each_kernel_names_its_operators_in_order(tmp_path: Path) -> None:
    calls = calls_of(network(tmp_path / "m.onnx"))
    assert all(operators for _, operators in calls)
    layers = [operators for name, operators in calls if "conv" in name]
    assert layers[0] == ("one.c/Conv", "one.n/BatchNormalization", "one.r/Relu")
    assert layers[1][:3] == ("two.c/Conv", "two.n/BatchNormalization", "two.r/Relu")
    told = {operator for _, operators in calls for operator in operators}
    assert {"sum/Add", "pool/GlobalAveragePool", "flat/Flatten", "y/Gemm"} <= told


def test_nodes_without_a_name_are_called_after_what_they_make(tmp_path: Path) -> None:
    calls = calls_of(network(tmp_path / "m.onnx", names=False))
    layers = [operators for name, operators in calls if "conv" in name]
    assert layers[0] == ("Conv of one.c", "BatchNormalization of one.n", "Relu of one.r")


def test_names_change_neither_tasks_nor_functions(tmp_path: Path) -> None:
    one = optimise(import_model(network(tmp_path / "one.onnx")), native(1))
    other = optimise(import_model(network(tmp_path / "two.onnx", prefix="other.")), native(1))
    assert one.functions == other.functions and one.tasks == other.tasks
    assert kernel_calls(one.module) != kernel_calls(other.module)


def test_equal_layers_are_one_task_with_calls_of_different_names(tmp_path: Path) -> None:
    nodes, value = [], "x"
    for place in ("a", "b", "c"):
        nodes.append(helper.make_node("MatMul", [value, "w"], [f"{place}.m"], f"{place}/MatMul"))
        nodes.append(helper.make_node("Tanh", [f"{place}.m"], [place], f"{place}/Tanh"))
        value = place
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [16, 16])
    result = helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [16, 16])
    weight = numpy_helper.from_array(RNG.normal(size=(16, 16)).astype("float32"), "w")
    graph = helper.make_graph(nodes, "chain", [shape], [result], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, tmp_path / "chain.onnx")
    fused = optimise(import_model(tmp_path / "chain.onnx"), native(1))
    assert [task.calls for task in fused.tasks] == [3]
    assert [operators for _, operators in kernel_calls(fused.module)] == [
        (f"{place}/MatMul", f"{place}/Tanh") for place in ("a", "b", "c")
    ]


def test_what_was_simplified_stands_for_all_that_it_was() -> None:
    def model(*nodes: Any) -> Any:
        shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 2])
        result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
        graph = helper.make_graph(nodes, "g", [shape], [result])
        return helper.make_model(graph)

    original = model(
        helper.make_node("Exp", ["x"], ["e"], "exp"),
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Neg", ["e"], ["n"], "neg"),
        helper.make_node("Reshape", ["n", "s"], ["y"], "reshape"),
    )
    made = model(
        helper.make_node("Exp", ["x"], ["fresh"], ""),
        helper.make_node("Identity", ["fresh"], ["e"], ""),
        helper.make_node("Neg", ["e"], ["y"], "merged"),
    )
    names = original_names(original, made)
    assert names == {"fresh": ("exp",), "e": ("exp",), "y": ("neg", "reshape")}


def test_modules_of_torch_are_named() -> None:
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 8)
            self.second = torch.nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.second(torch.relu(self.first(x))))

    program = torch.export.export(Block().eval(), (torch.zeros(4, 8),))
    calls = kernel_calls(optimise(import_model(program), native(1)).module)
    assert all(operators for _, operators in calls)
    assert calls[0][1] == ("first/linear", "relu") and calls[-1][1] == ("second/linear_1", "relu_1")
