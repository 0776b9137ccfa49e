"""Models as ONNX Runtime's quantiser and optimiser write them: imported, compiled, right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.artifact.build import runnable
from autotune.frontends import ImportedModel, import_model, verify_import
from autotune.frontends.sampling import random_inputs
from autotune.graph.model import FusedModel
from autotune.graph.pipeline import optimise
from autotune.steps import best_schedules
from autotune.target import native
from search_spaces.registry import default_candidate

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LENGTH = 16


class Writer:
    """A model by its nodes, each named by its operator and place."""

    def __init__(self, opset: int) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.rng = np.random.default_rng(0)
        self.opset = opset

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        names = [given if isinstance(given, str) else self.tensor(given) for given in inputs]
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [name], name, **attributes))
        return name

    def tensor(self, array: Any) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int, scale: float = 0.1) -> Any:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def saved(self, path: Path, inputs: dict[str, tuple[int, list[Any]]], output: str) -> Path:
        given = [helper.make_tensor_value_info(n, kind, s) for n, (kind, s) in inputs.items()]
        made = helper.make_tensor_value_info(output, FLOAT, None)
        graph = helper.make_graph(self.nodes, "made", given, [made], self.tensors)
        sets = [helper.make_opsetid("", self.opset)]
        onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=9), path)
        return path


def convolutions(path: Path) -> Path:
    """Residual, pooled both ways, with every activation that the quantiser knows."""
    w = Writer(17)

    def conv(x: str, inputs: int, outputs: int, window: int) -> str:
        scale = (2 / (inputs * window * window)) ** 0.5
        kernel = w.normal(outputs, inputs, window, window, scale=scale)
        return w("Conv", x, kernel, w.normal(outputs), pads=[window // 2] * 4)

    first = w("Relu", conv("x", 3, 16, 3))
    total = w("LeakyRelu", w("Add", conv(first, 16, 16, 3), first), alpha=0.1)
    third = conv(w("MaxPool", total, kernel_shape=[2, 2], strides=[2, 2]), 16, 32, 1)
    swish = w("Mul", third, w("Sigmoid", third))
    pooled = w("AveragePool", swish, kernel_shape=[2, 2], strides=[2, 2])
    joined = w("Concat", pooled, pooled, axis=1)
    flat = w("Flatten", w("GlobalAveragePool", joined))
    y = w("Softmax", w("Gemm", flat, w.normal(64, 10), w.normal(10)), axis=1)
    return w.saved(path, {"x": (FLOAT, [1, 3, 16, 16])}, y)


def encoder(path: Path, opset: int, hidden: int = 64, heads: int = 4) -> Path:
    """One layer of a transformer, after its embeddings, as exporters write it."""
    w, width = Writer(opset), hidden // heads

    def norm(x: str) -> str:
        scale, shift = w.normal(hidden) + 1, w.normal(hidden)
        if opset >= 17:
            return w("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)
        centred = w("Sub", x, w("ReduceMean", x, axes=[-1]))
        squares = w("ReduceMean", w("Pow", centred, np.float32(2)), axes=[-1])
        root = w("Sqrt", w("Add", squares, np.float32(1e-12)))
        return w("Add", w("Mul", w("Div", centred, root), scale), shift)

    def dense(x: str, inputs: int, outputs: int) -> str:
        product = w("MatMul", x, w.normal(inputs, outputs, scale=inputs**-0.5))
        return w("Add", product, w.normal(outputs))

    def turned(x: str, *order: int) -> str:
        split = w("Reshape", dense(x, hidden, hidden), np.array([0, 0, heads, width]))
        return w("Transpose", split, perm=order)

    words = w("Gather", w.normal(50, hidden, scale=1), "input_ids")
    kinds = w("Gather", w.normal(2, hidden, scale=1), "token_type_ids")
    x = norm(w("Add", w("Add", words, kinds), w.normal(1, LENGTH, hidden, scale=1)))
    first = w("Unsqueeze", "attention_mask", np.array([1]))
    mask = w("Cast", w("Unsqueeze", first, np.array([2])), to=FLOAT)
    added = w("Mul", w("Sub", np.float32(1), mask), np.float32(-10000))
    q, k, v = turned(x, 0, 2, 1, 3), turned(x, 0, 2, 3, 1), turned(x, 0, 2, 1, 3)
    scores = w("Add", w("Div", w("MatMul", q, k), np.float32(width**0.5)), added)
    y = w("Transpose", w("MatMul", w("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = norm(w("Add", dense(w("Reshape", y, np.array([0, 0, hidden])), hidden, hidden), x))
    inner = dense(x, hidden, 4 * hidden)
    grown = w("Add", w("Erf", w("Div", inner, np.float32(2**0.5))), np.float32(1))
    half = w("Mul", w("Mul", inner, grown), np.float32(0.5))
    y = norm(w("Add", dense(half, 4 * hidden, hidden), x))
    names = ("input_ids", "token_type_ids", "attention_mask")
    return w.saved(path, {name: (INT64, ["batch", LENGTH]) for name in names}, y)


def statically(path: Path, form: str, activations: str, *, by_channel: bool) -> Path:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            drawn = np.random.default_rng(1).uniform(-1, 1, (4, 1, 3, 16, 16)).astype(np.float32)
            self.left: Iterator[Any] = iter([{"x": x} for x in drawn])

        def get_next(self) -> Any:
            return next(self.left, None)

    made = path.with_name(f"{form}.onnx")
    quantization.quantize_static(
        str(path),
        str(made),
        Reader(),
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
        per_channel=by_channel,
    )
    return made


def optimised(path: Path, level: str = "EXTENDED") -> Path:
    made = path.with_name(f"{path.stem}.{level}.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(made)
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    onnxruntime.InferenceSession(str(path), options)
    return made


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def imported(path: Path) -> ImportedModel:
    """The model, for two sentences where it leaves their number open."""
    names = [value.name for value in onnx.load(path, load_external_data=False).graph.input]
    return import_model(path, {name: (2, LENGTH) for name in names if name != "x"})


def compiled(path: Path) -> tuple[FusedModel, Any, Any]:
    """The model, what it computes of random inputs, and what ONNX Runtime does."""
    model = imported(path)
    fused = optimise(model, native(1))
    inputs = random_inputs(model.inputs, 3)
    name = model.outputs[0].name
    actual = runnable(fused, best_schedules(fused, None))(inputs)[name]
    return fused, actual, model.reference(inputs)[name]


@pytest.mark.parametrize(("activations", "by_channel"), [("QUInt8", True), ("QInt8", False)])
def test_convolutions_in_the_form_of_operators(
    tmp_path: Path, activations: str, by_channel: bool
) -> None:
    source = convolutions(tmp_path / "made.onnx")
    path = statically(source, "QOperator", activations, by_channel=by_channel)
    assert {"QLinearConv", "QLinearAdd", "QGemm", "QLinearAveragePool"} <= operators(path)
    _, actual, expected = compiled(path)
    step = 1 / 255
    assert np.abs(actual - expected).max() <= step * 1.01
    assert verify_import(imported(path)).error <= step * 1.01


def kernels(fused: FusedModel) -> Counter[str]:
    """How many calls there are to kernels of each space."""
    found: Counter[str] = Counter()
    for task in fused.tasks:
        found[default_candidate(task, fused.target).space] += task.calls
    return found


def test_both_forms_become_the_same_kernels(tmp_path: Path) -> None:
    source = convolutions(tmp_path / "made.onnx")
    operator, pairs = (
        optimise(import_model(statically(source, form, "QUInt8", by_channel=True)), native(1))
        for form in ("QOperator", "QDQ")
    )
    assert kernels(operator)["cpu.integer"] == kernels(pairs)["cpu.integer"]
    assert sum(kernels(operator).values()) <= sum(kernels(pairs).values()) + 3


@pytest.mark.parametrize(("opset", "optimise_it"), [(13, False), (17, True)])
def test_an_encoder_whose_weights_are_quantised(
    tmp_path: Path, opset: int, optimise_it: bool
) -> None:
    from onnxruntime import quantization

    source, path = encoder(tmp_path / "made.onnx", opset), tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(
        str(source), str(path), weight_type=quantization.QuantType.QInt8, per_channel=True
    )
    assert "MatMulInteger" in operators(path)
    if optimise_it:
        path = optimised(path)
        assert "DynamicQuantizeMatMul" in operators(path)
    _, actual, expected = compiled(path)
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    verify_import(imported(path))


@pytest.mark.parametrize("opset", [13, 17])
def test_an_encoder_that_was_optimised(tmp_path: Path, opset: int) -> None:
    path = optimised(encoder(tmp_path / "made.onnx", opset))
    assert {"SkipLayerNormalization", "BiasGelu", "FusedMatMul"} <= operators(path)
    _, actual, expected = compiled(path)
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()
    assert verify_import(imported(path)).error < 1e-5


def test_an_encoder_by_the_tools_for_transformers(tmp_path: Path) -> None:
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    source, path = encoder(tmp_path / "made.onnx", 17), tmp_path / "fused.onnx"
    model = optimizer.optimize_model(
        str(source), model_type="bert", num_heads=4, hidden_size=64, opt_level=0
    )
    model.save_model_to_file(str(path))
    assert {"Attention", "SkipLayerNormalization", "BiasGelu"} <= operators(path)
    assert verify_import(imported(path)).error < 1e-5


def test_layouts_of_one_processor_are_refused(tmp_path: Path) -> None:
    path = optimised(convolutions(tmp_path / "made.onnx"), "ALL")
    if not any(node.domain.endswith("nchwc") for node in onnx.load(path).graph.node):
        pytest.skip("ONNX Runtime has no such layout for this processor")
    with pytest.raises(Exception, match="write it with ORT_ENABLE_EXTENDED"):
        import_model(path)
