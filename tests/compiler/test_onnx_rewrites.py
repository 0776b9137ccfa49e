"""Every rewrite computes what ONNX Runtime does (or the standard's reference), option by option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autotune.errors import ModelError
from autotune.frontends import ImportedModel, import_model, verify_import
from autotune.frontends.onnx_rewrites import REWRITES
from autotune.frontends.verify import naive_build
from tests.compiler.onnx_written import Shape, made_of, normal, whole

FLOAT, DOUBLE, INT64, INT8, UINT8, INT32 = (
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8,
    TensorProto.INT32,
)  # fmt: skip
DTYPES = {FLOAT: np.float32, INT64: np.int64, INT8: np.int8, UINT8: np.uint8}
node = helper.make_node


def written(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    constants: dict[str, Any],
    outputs: Sequence[str],
    opset: int,
) -> Path:
    proto = onnx.shape_inference.infer_shapes(
        made_of(nodes, inputs, constants, outputs, {"": opset}, ir_version=10)
    )
    path = folder / "made.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def taken_apart(path: Path) -> ImportedModel:
    """The model as our rewrites import it, whatever works before them."""
    model: ImportedModel | None = import_model(path)
    while model is not None and "rewritten" not in model.stage:
        model = model.again()
    assert model is not None
    return model


def lstm(gates: int, directions: int, **attributes: Any) -> Any:
    """Nodes, inputs, constants and outputs of a recurrent node: 3 steps, 3 inputs, 4 states."""
    constants = {
        "w": normal(directions, gates * 4, 3),
        "r": normal(directions, gates * 4, 4),
        "b": normal(directions, 2 * gates * 4),
        "h": normal(directions, 2, 4),
    }
    inputs = ["x", "w", "r", "b", attributes.pop("lengths", ""), "h"]
    outputs = ["y", "last"]
    if gates == 4:
        constants["c"] = normal(directions, 2, 4)
        constants["p"] = normal(directions, 3 * 4)
        inputs += ["c", "p"] if attributes.pop("peepholes", True) else ["c"]
        outputs.append("cell")
    name = {1: "RNN", 3: "GRU", 4: "LSTM"}[gates]
    made = node(name, inputs, outputs, hidden_size=4, **attributes)
    constants["lengths"] = np.array([2, 3], np.int32)
    constants["none"] = np.array([0, 3], np.int32)
    return [made], {"x": (FLOAT, (3, 2, 3))}, constants, outputs


def unary(operator: str, shape: Shape, *names: str, kind: int = FLOAT, **attributes: Any) -> Any:
    return [node(operator, ["x", *names], ["y"], **attributes)], {"x": (kind, shape)}


def body(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[str]) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )


def typed(graph: onnx.GraphProto, kinds: list[tuple[int, Shape]]) -> onnx.GraphProto:
    for value, (kind, shape) in zip(graph.output, kinds, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    return graph


LOOP = typed(
    body(
        [
            node("Add", ["s", "x"], ["t"]),
            node("Identity", ["going"], ["on"]),
            node("Mul", ["t", "t"], ["square"]),
        ],
        [("i", INT64, ()), ("going", TensorProto.BOOL, ()), ("s", FLOAT, (2,))],
        ["on", "t", "square"],
    ),
    [(TensorProto.BOOL, ()), (FLOAT, (2,)), (FLOAT, (2,))],
)
SCAN = typed(
    body(
        [node("Add", ["s", "e"], ["t"]), node("Identity", ["t"], ["row"])],
        [("s", FLOAT, (3,)), ("e", FLOAT, (3,))],
        ["t", "row"],
    ),
    [(FLOAT, (3,)), (FLOAT, (3,))],
)
BRANCHES = {
    f"{name}_branch": typed(body([node(op, ["x"], ["z"])], [], ["z"]), [(FLOAT, (3,))])
    for name, op in (("then", "Neg"), ("else", "Abs"))
}
Q = {"xs": np.float32(0.05), "xz": np.uint8(120), "ys": np.float32(0.5), "yz": np.uint8(3)}
X4 = (1, 2, 5, 6)

CASES: dict[str, Any] = {
    "lstm": lstm(4, 1),
    "lstm reverse": lstm(4, 1, direction="reverse", peepholes=False),
    "lstm both, lengths": lstm(4, 2, direction="bidirectional", lengths="lengths"),
    "lstm both, no steps": lstm(4, 2, direction="bidirectional", lengths="none"),
    "lstm clip, coupled": lstm(4, 1, clip=0.3, input_forget=1),
    "lstm functions": lstm(
        4, 1, activations=["HardSigmoid", "Relu", "Softsign"],
        activation_alpha=[0.3], activation_beta=[0.4],
    ),
    "gru": lstm(3, 1),
    "gru both, after reset": lstm(3, 2, direction="bidirectional", linear_before_reset=1),
    "gru lengths, reverse": lstm(3, 1, direction="reverse", lengths="lengths"),
    "gru no steps": lstm(3, 1, lengths="none"),
    "rnn no steps, reverse": lstm(1, 1, direction="reverse", lengths="none"),
    "rnn": lstm(1, 2, direction="bidirectional", activations=["Tanh", "Relu"]),
    "onehot": (*unary("OneHot", (3,), "d", "v", kind=INT64, axis=0),
               {"d": np.array(4, np.int64), "v": np.array([-1, 2], np.float32)}),
    "pow": (*unary("Pow", (2, 3), "e"), {"e": np.array([2, 3, 0], np.int64)}),
    "quantise": (*unary("QuantizeLinear", (2, 3), "xs", "xz"), Q),
    "dequantise": (*unary("DequantizeLinear", (2, 3), "xs", "xz", kind=UINT8), Q),
    "dynamic": ([node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])],
                {"x": (FLOAT, (2, 3))}, {}, ["y", "s", "z"]),
    "matmul of integers": (*unary("MatMulInteger", (2, 4), "w", "xz", kind=UINT8),
                           {**Q, "w": whole(np.int8, 4, 3)}),
    "conv of integers": (*unary("ConvInteger", X4, "w", "xz", kind=UINT8, pads=[1] * 4),
                         {**Q, "w": whole(np.uint8, 3, 2, 3, 3)}),
    "qlinear matmul": (
        *unary("QLinearMatMul", (2, 4), "xs", "xz", "w", "ws", "wz", "ys", "yz", kind=UINT8),
        {**Q, "w": whole(np.uint8, 4, 3), "ws": np.float32(0.02), "wz": np.uint8(100)}),
    "qlinear conv": (
        *unary("QLinearConv", X4, "xs", "xz", "w", "ws", "wz", "ys", "yz", "b", kind=UINT8),
        {**Q, "w": whole(np.int8, 3, 2, 3, 3) // 4, "ws": np.array([0.02, 0.1, 0.05], np.float32),
         "wz": np.zeros(3, np.int8), "b": np.array([100, -200, 0], np.int32)}),
    "dft": (*unary("DFT", (1, 7, 1), "", "a", onesided=1), {"a": np.array(1, np.int64)}, ["y"], 20),
    "dft inverse": (*unary("DFT", (1, 6, 2), "", "a", inverse=1), {"a": np.array(1, np.int64)},
                    ["y"], 20),
    "stft": (*unary("STFT", (1, 32, 1), "s", "w"),
             {"s": np.array(4, np.int64), "w": np.hanning(8).astype(np.float32)}),
    "reverse": (*unary("ReverseSequence", (4, 3), "l", time_axis=0, batch_axis=1),
                {"l": np.array([1, 4, 2], np.int64)}),
    "loop": ([node("Loop", ["n", "", "s"], ["y", "rows"], body=LOOP)], {"x": (FLOAT, (2,))},
             {"n": np.array(4, np.int64), "s": np.array([1, 2], np.float32)}, ["y", "rows"]),
    "scan": ([node("Scan", ["s", "x"], ["last", "y"], body=SCAN, num_scan_inputs=1,
                   scan_input_directions=[1])],
             {"x": (FLOAT, (4, 3))}, {"s": np.zeros(3, np.float32)}, ["last", "y"]),
    "if": ([node("If", ["c"], ["y"], **BRANCHES)], {"x": (FLOAT, (3,))}, {"c": np.array(True)}),
    "attention": (
        [node("Attention", ["q", "k", "v", "m", "pk", "pv"], ["y", "nk", "nv"], q_num_heads=4,
              kv_num_heads=2, is_causal=1, softcap=3.0)],
        {"q": (FLOAT, (2, 3, 32)), "k": (FLOAT, (2, 3, 16)), "v": (FLOAT, (2, 3, 16)),
         "pk": (FLOAT, (2, 2, 5, 8)), "pv": (FLOAT, (2, 2, 5, 8))},
        {"m": normal(3, 8)}, ["y", "nk", "nv"], 23),
    "cache": ([node("TensorScatter", ["c", "u", "i"], ["y"], mode="circular", axis=2)],
              {"c": (FLOAT, (2, 1, 6, 3)), "u": (FLOAT, (2, 1, 4, 3)), "i": (INT64, (2,))}, {},
              ["y"], 24),
    "layer norm": ([node("LayerNormalization", ["x", "g", "b"], ["y", "mean", "inv"], axis=1)],
                   {"x": (FLOAT, (2, 3, 4))}, {"g": normal(3, 4), "b": normal(3, 4)},
                   ["y", "mean", "inv"]),
    "lp norm": unary("LpNormalization", (3, 4), axis=0, p=1),
    "max pool": ([node("MaxPool", ["x"], ["y", "i"], kernel_shape=[3, 2], strides=[2, 2],
                       pads=[1, 0, 1, 1])], {"x": (FLOAT, X4)}, {}, ["y", "i"]),
    "col2im": (*unary("Col2Im", (1, 8, 9), "size", "block"),
               {"size": np.array([4, 4]), "block": np.array([2, 2])}, ["y"], 18),
    "transposed": (*unary("ConvTranspose", X4, "w", output_shape=[10, 12], strides=[2, 2]),
                   {"w": normal(2, 3, 3, 3)}),
    "deformed": (
        [node("DeformConv", ["x", "w", "o", "b", "m"], ["y"], offset_group=2, group=2,
              pads=[1, 1, 1, 1], strides=[2, 1])],
        {"x": (FLOAT, (1, 4, 5, 6)), "o": (FLOAT, (1, 36, 3, 6)), "m": (FLOAT, (1, 18, 3, 6))},
        {"w": normal(6, 2, 3, 3), "b": normal(6)}, ["y"], 19),
    "determinant": unary("Det", (2, 3, 3)),
    "sequences counted": unary(
        "TfIdfVectorizer", (2, 7), kind=INT64, mode="TF", min_gram_length=1, max_gram_length=2,
        max_skip_count=2, ngram_counts=[0, 2], ngram_indexes=[3, 0, 1, 2],
        pool_int64s=[1, 0, 0, 1, 1, 1]),
    "shift": (*unary("BitShift", (4,), "n", kind=UINT8, direction="LEFT"),
              {"n": np.array([1, 7, 8, 200], np.uint8)}),
    "mod": ([node("Mod", ["x", "z"], ["y"], fmod=1)], {"x": (FLOAT, (9,)), "z": (FLOAT, (9,))}),
    "cumulative": (*unary("CumProd", (5,), "a", exclusive=1, reverse=1),
                   {"a": np.array(0, np.int64)}, ["y"], 26),
}  # fmt: skip

MODES: list[dict[str, Any]] = [
    {"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"},
    {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    {"mode": "linear"},
    {"mode": "linear", "antialias": 1},
    {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
]


@pytest.mark.parametrize("name", CASES)
def test_a_rewrite_computes_the_same(tmp_path: Path, name: str) -> None:
    nodes, inputs, *rest = CASES[name]
    constants, outputs, opset = (*rest, {}, ["y"], 17)[:3] if not rest else (
        rest[0], rest[1] if len(rest) > 1 else ["y"], rest[2] if len(rest) > 2 else 17,
    )  # fmt: skip
    model = taken_apart(written(tmp_path, nodes, inputs, constants, outputs, opset))
    assert verify_import(model).error < 1e-5


RECURRENT = [name for name in CASES if name.startswith(("lstm", "gru", "rnn"))]


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrence_without_a_loop_computes_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.frontends.onnx_rewrites.recurrent_loop.SHORTEST", 1000)
    nodes, inputs, constants, outputs = CASES[name]
    model = taken_apart(written(tmp_path, nodes, inputs, constants, outputs, 17))
    assert "call_tir" not in model.module.script()
    assert verify_import(model).error < 1e-5


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_lengths_of_sequences_that_are_an_input(tmp_path: Path, gates: int) -> None:
    """Of no step at all as well: what is last is zero then, whatever was first."""
    nodes, inputs, constants, outputs = lstm(gates, 1, lengths="lengths")
    del constants["lengths"]
    path = written(tmp_path, nodes, inputs | {"lengths": (INT32, (2,))}, constants, outputs, 17)
    model = taken_apart(path)
    assert verify_import(model).error < 1e-5
    given = {"x": normal(3, 2, 3), "lengths": np.array([0, 3], np.int32)}
    last = naive_build(model)(given)["last"]
    assert not last[0, 0].any() and last[0, 1].all()


@pytest.mark.parametrize("size", [(3, 9), (7, 4)], ids=["up and down", "down and up"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: " ".join(map(str, mode.values())))
def test_resize_in_its_modes(tmp_path: Path, mode: dict[str, Any], size: Shape) -> None:
    nodes = [node("Resize", ["x", "", "", "s"], ["y"], **mode)]
    constants = {"s": np.array([1, 2, *size], np.int64)}
    path = written(tmp_path, nodes, {"x": (FLOAT, X4)}, constants, ["y"], 19)
    model = taken_apart(path)
    assert model.outputs[0].shape == (1, 2, *size)
    assert verify_import(model).error < 1e-5


def test_every_rewrite_is_for_an_operator_of_the_standard() -> None:
    names = {operator for rewrite in REWRITES for operator in rewrite.operators}
    pairs = {(operator, r.domain) for r in REWRITES for operator in r.operators}
    assert [pair for pair in pairs if not onnx.defs.has(*pair)] == []
    assert {"LSTM", "Resize", "QLinearConv", "Attention", "Loop", "STFT"} <= names


def test_long_sequences_and_endless_loops_are_refused_with_the_reason(tmp_path: Path) -> None:
    nodes, _, constants, outputs = lstm(4, 1)
    wide = {name: v.astype(np.float64) if v.dtype == np.float32 else v
            for name, v in constants.items()}  # fmt: skip
    path = written(tmp_path, nodes, {"x": (DOUBLE, (5000, 2, 3))}, wide, outputs, 17)
    with pytest.raises(ModelError, match="LSTM of 5000 steps that are no loop.*at most 512"):
        import_model(path)
    trips = {"n": np.array(10**12, np.int64), "s": np.zeros(2, np.float32)}
    nodes = [node("Loop", ["n", "", "s"], ["y", "rows"], body=LOOP)]
    path = written(tmp_path, nodes, {"x": (FLOAT, (2,))}, trips, ["y", "rows"], 17)
    with pytest.raises(ModelError, match="a Loop of 1000000000000 steps: at most 1024"):
        import_model(path)


def test_a_loop_that_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Cast", ["total"], ["n"], to=INT64),
        node("Loop", ["n", "", "s"], ["y", "rows"], body=LOOP),
    ]
    path = written(tmp_path, nodes, {"x": (FLOAT, (2,))}, {"s": np.zeros(2, np.float32)}, ["y"], 17)
    with pytest.raises(ModelError, match=r"Loop \(1×\) \(n is not known before the model runs"):
        import_model(path)


def test_what_the_standard_and_onnx_runtime_disagree_on_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Resize", ["x", "", "s"], ["y"], mode="linear",
             coordinate_transformation_mode="align_corners")
    ]  # fmt: skip
    constants = {"s": np.array([1, 1, 0.7, 0.7], np.float32)}
    with pytest.raises(ModelError, match="align_corners"):
        import_model(written(tmp_path, nodes, {"x": (FLOAT, X4)}, constants, ["y"], 19))
