"""Models that take, hold, compute and return bfloat16 numbers, as exporters write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import autotune
from autotune.artifact.build import runnable
from autotune.errors import ModelError
from autotune.frontends import import_model, verify_import
from autotune.frontends.onnx_bfloat16 import rounding
from autotune.frontends.sampling import random_inputs
from autotune.frontends.verify import naive_build
from autotune.graph.pipeline import optimise
from autotune.target import native
from search_spaces.cpu.dot import BFLOAT16
from search_spaces.registry import default_candidate

BF16 = np.dtype(ml_dtypes.bfloat16)
SHORT = TensorProto.BFLOAT16
node = helper.make_node


def short(*shape: int, scale: float = 0.3) -> Any:
    return (np.random.default_rng(len(shape)).standard_normal(shape) * scale).astype(BF16)


def saved(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    shape: tuple[int, ...],
    outputs: dict[str, int] | None = None,
    opset: int = 22,
) -> Path:
    """The model file; its outputs have a type and no shape."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    returned = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (outputs or {"y": SHORT}).items()
    ]
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info("x", SHORT, shape)], returned, tensors
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path = folder / "made.onnx"
    onnx.save(proto, path)
    return path


PERCEPTRON = [
    node("MatMul", ["x", "w"], ["m"]),
    node("Add", ["m", "b"], ["a"]),
    node("Relu", ["a"], ["r"]),
    node("Softmax", ["r"], ["y"]),
]
WEIGHTS = {"w": short(32, 16), "b": short(16)}
MODELS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], tuple[int, ...]]] = {
    "perceptron": (PERCEPTRON, WEIGHTS, (4, 32)),
    "conv": (
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            node("LeakyRelu", ["c"], ["r"], alpha=0.1),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("GlobalAveragePool", ["p"], ["y"]),
        ],
        {"w": short(8, 3, 3, 3), "b": short(8)},
        (1, 3, 8, 8),
    ),
    "norm": (
        [node("LayerNormalization", ["x", "s", "b"], ["y"], epsilon=1e-5)],
        {"s": short(16, scale=1), "b": short(16)},
        (4, 16),
    ),
    "recurrence": (
        [node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=4)],
        {"w": short(1, 16, 3), "r": short(1, 16, 4)},
        (5, 2, 3),
    ),
}


def in_double(nodes: str, x: Any) -> Any:
    """The perceptron of the numbers as they are given, nothing rounded."""
    w, b = (WEIGHTS[name].astype(np.float64) for name in ("w", "b"))
    sums = np.maximum(x.astype(np.float64) @ w + b, 0)
    powers = np.exp(sums - sums.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("opset", [18, 22])
def test_in_and_out(tmp_path: Path, name: str, opset: int) -> None:
    """Before opset 22 there was no convolution of such numbers, but exporters write it."""
    model = import_model(saved(tmp_path, *MODELS[name], opset=opset))
    assert model.inputs[0].dtype == model.outputs[0].dtype == "bfloat16"
    check = verify_import(model)
    assert check.engine == "onnxruntime"
    assert check.error < 2**-7


def test_an_artifact(tmp_path: Path) -> None:
    """Compiled, loaded and run: within a rounding or two of the exact result."""
    autotune.compile(saved(tmp_path, *MODELS["perceptron"]), output=tmp_path / "out", threads=1)
    loaded = autotune.load(tmp_path / "out")
    x = short(4, 32, scale=1)
    y = loaded({"x": x})["y"]
    assert y.dtype == BF16
    expected = in_double("perceptron", x)
    assert np.abs(y.astype(np.float64) - expected).max() < 2**-7 * expected.max()
    np.save(tmp_path / "x.npy", x)  # which forgets what it is of
    again = loaded({"x": np.load(tmp_path / "x.npy")})["y"]
    assert (again == y).all()


@pytest.mark.skipif(not BFLOAT16.lanes(native(1)), reason="this CPU has no AVX-512 BF16")
def test_sums_have_kernels_of_such_numbers(tmp_path: Path) -> None:
    """Also those of what comes in and of what goes out."""
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = {"w": short(32, 16), "v": short(16, 48)}
    model = import_model(saved(tmp_path, nodes, weights, (4, 32)))
    made = optimise(model, native(1))
    spaces = [default_candidate(task, made.target).space for task in made.tasks]
    assert sum(space in ("cpu.bfloat16", "cpu.tiles") for space in spaces) == 2
    x = short(4, 32, scale=1)
    found = runnable(made)({"x": x})["y"]
    w, v = (weights[name].astype(np.float64) for name in "wv")
    middle = np.maximum(x.astype(np.float64) @ w, 0).astype(BF16).astype(np.float64)
    np.testing.assert_allclose(found.astype(np.float64), middle @ v, rtol=2**-6, atol=2**-6)


def test_sums_are_not_those_of_eight_bits(tmp_path: Path) -> None:
    """A thousand ones: added up as bfloat16 numbers they stop at 256."""
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path, nodes, {"w": np.ones((1000, 1), BF16)}, (1, 1000))
    run = naive_build(import_model(path))
    assert float(run({"x": np.ones((1, 1000), BF16)})["y"][0, 0]) == 1000


def test_every_operator_rounds(tmp_path: Path) -> None:
    """256 + 1 is 256, and so is that plus one."""
    nodes = [node("Add", ["x", "one"], ["a"]), node("Add", ["a", "one"], ["y"])]
    run = naive_build(import_model(saved(tmp_path, nodes, {"one": np.ones(1, BF16)}, (1,))))
    assert float(run({"x": np.full(1, 256, BF16)})["y"][0]) == 256


def test_types_within(tmp_path: Path) -> None:
    """Casts from and to, constants of nodes, moved numbers, and outputs that others read."""
    value = numpy_helper.from_array(short(8))
    nodes = [
        node("Constant", [], ["c"], value=value),
        node("Mul", ["x", "c"], ["m"]),
        node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        node("Exp", ["f"], ["e"]),
        node("Cast", ["e"], ["s"], to=SHORT),
        node("CastLike", ["f", "s"], ["l"]),
        node("Concat", ["s", "l", "x"], ["t"], axis=0),
        node("Shape", ["t"], ["n"]),
        node("ConstantOfShape", ["n"], ["z"], value=numpy_helper.from_array(np.ones(1, BF16))),
        node("Add", ["t", "z"], ["u"]),
        node("ArgMax", ["u"], ["i"], axis=0),
        node("Greater", ["u", "t"], ["g"]),
    ]
    outputs = {
        "m": SHORT, "f": TensorProto.FLOAT, "u": SHORT, "x": SHORT,
        "i": TensorProto.INT64, "g": TensorProto.BOOL,
    }  # fmt: skip
    nodes.insert(0, node("Identity", ["x"], ["same"]))
    outputs = {k if k != "x" else "same": v for k, v in outputs.items()}
    model = import_model(saved(tmp_path, nodes, {}, (3, 8), outputs))
    assert [spec.dtype for spec in model.outputs] == [
        "bfloat16", "float32", "bfloat16", "bfloat16", "int64", "bool"
    ]  # fmt: skip
    verify_import(model)
    inputs = random_inputs(model.inputs, 3)
    found = naive_build(model)(inputs)
    assert (found["m"] == inputs["x"] * short(8)).all()
    assert (found["same"] == inputs["x"]).all()


def test_functions_of_the_model(tmp_path: Path) -> None:
    """As torch's exporter writes some operators."""
    path = saved(tmp_path, [node("twice", ["x"], ["y"], domain="own")], {}, (4,))
    proto = onnx.load(path)
    opsets = [helper.make_opsetid("", 22)]
    proto.functions.append(
        helper.make_function("own", "twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opsets)
    )
    proto.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(proto, path)
    assert verify_import(import_model(path)).error == 0


def test_a_wrong_import_is_found(tmp_path: Path) -> None:
    """The reference is not what the import is made of."""
    path = saved(tmp_path, *MODELS["perceptron"])
    other = dict(WEIGHTS, b=np.asarray(WEIGHTS["b"] + short(16)[::-1], BF16))
    folder = tmp_path / "other"
    folder.mkdir()
    wrong = naive_build(import_model(saved(folder, PERCEPTRON, other, (4, 32))))
    with pytest.raises(ModelError, match="differs"):
        verify_import(import_model(path), lambda _: wrong)


def test_without_any(tmp_path: Path) -> None:
    proto = onnx.load(saved(tmp_path, *MODELS["perceptron"]))
    assert rounding(proto) is not proto
    plain = helper.make_model(helper.make_graph([], "none", [], []))
    assert rounding(plain) is plain
