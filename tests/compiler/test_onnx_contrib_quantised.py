"""Operators of stored numbers, as ONNX Runtime's quantiser writes them, compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from autotune.errors import ModelError
from autotune.frontends import import_model, verify_import
from autotune.frontends.sampling import random_inputs
from autotune.frontends.verify import Disagreement, check_outputs
from tests.compiler.contrib import FLOAT, INT8, INT32, MICROSOFT, UINT8, agreement, node, written
from tests.compiler.onnx_written import normal, whole

X4 = (1, 4, 6, 8)
TOLD = {"xs": np.float32(0.031), "xz": np.uint8(120), "ys": np.float32(0.043), "yz": np.uint8(99)}
SIGNED = TOLD | {"xz": np.int8(-3), "yz": np.int8(5)}
BOTH = {"bs": np.float32(0.017), "bz": np.uint8(131)}
WEIGHTS = {"w": whole(np.int8, 8, 4, 3, 3), "ws": np.float32(0.01), "wz": np.int8(0)}
COLUMNS = {"ws": np.abs(normal(8)) + np.float32(0.01), "wz": np.zeros(8, np.int8)}
MATRIX = {"w": whole(np.int8, 24, 8), "ws": np.float32(0.01), "wz": np.int8(0)}
ONE = ["x", "xs", "xz", "ys", "yz"]
CONV = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
BIAS = {"b": (whole(np.int8, 8)).astype(np.int32) * 20}


def alone(operator: str, told: dict[str, Any] = TOLD, shape: Any = X4, **attributes: Any) -> Any:
    kind = INT8 if told["yz"].dtype == np.int8 else UINT8
    return [node(operator, ONE, **attributes)], {"x": (kind, shape)}, told


def pair(operator: str, other: Any = X4) -> Any:
    inputs = ["x", "xs", "xz", "b", "bs", "bz", "ys", "yz"]
    return [node(operator, inputs)], {"x": (UINT8, X4), "b": (UINT8, other)}, TOLD | BOTH


def conv(constants: Any, *, domain: str = "", bias: bool = True, **attributes: Any) -> Any:
    made = helper.make_node("QLinearConv", CONV + ["b"] * bias, ["y"], **attributes)
    made.domain = domain
    held = TOLD | WEIGHTS | constants | (BIAS if bias else {})
    return [made], {"x": (UINT8, (1, 6, 8, 4) if domain else X4)}, held


def gemm(constants: Any, inputs: list[str], **attributes: Any) -> Any:
    held = TOLD | MATRIX | constants
    given = [name for name in inputs if name]
    return (
        [node("QGemm", inputs, **attributes)],
        {"x": (UINT8, (5, 24))},
        {n: v for n, v in held.items() if n in given},
    )


TURNED = COLUMNS | {"w": MATRIX["w"].T.copy()}
PRODUCT = ["x", "xs", "xz", "w", "ws", "wz"]
FLOATS = ["x", "w", "ws", "wz"]
DYNAMIC = {"w": whole(np.int8, 24, 8), "ws": np.float32(0.01)}


def attention(*more: str, columns: bool = False) -> Any:
    constants = {"w": whole(np.int8, 16, 48), "b": normal(48), "xs": np.float32(0.01),
                 "xz": np.uint8(118), "ws": np.float32(0.004), "wz": np.int8(0)}  # fmt: skip
    if columns:
        constants["ws"] = np.abs(normal(48)) * np.float32(0.01)
        constants["wz"] = whole(np.int8, 48)
    inputs: Any = {"x": (UINT8, (2, 5, 16))} | ({"mask": (INT32, (2, 5))} if "mask" in more else {})
    names = ["x", "w", "b", "xs", "ws", "mask" if "mask" in more else "", "xz", "wz"]
    forward = int("forward" in more)
    return [node("QAttention", names, num_heads=4, unidirectional=forward)], inputs, constants


def few_bits(bits: int, *more: str, depth: int = 64) -> Any:
    blocks = -(-depth // 32)
    constants = {
        "w": whole(np.uint8, 8, blocks, 32 * bits // 8),
        "s": np.abs(normal(8, blocks)) * np.float32(0.1),
        "z": whole(np.uint8, 8, -(-blocks * bits // 8)),
        "b": normal(8),
    }
    names = ["x", "w", "s", "z" if "z" in more else "", "", "b" if "b" in more else ""]
    while not names[-1]:
        names.pop()
    made = node("MatMulNBits", names, K=depth, N=8, bits=bits, block_size=32)
    held = {name: value for name, value in constants.items() if name in names}
    return [made], {"x": (FLOAT, (5, depth))}, held


CASES: dict[str, Any] = {
    "add": pair("QLinearAdd"),
    "add broadcast": pair("QLinearAdd", (4, 1, 1)),
    "mul": pair("QLinearMul"),
    "sigmoid": alone("QLinearSigmoid", TOLD | {"ys": np.float32(1 / 255), "yz": np.uint8(0)}),
    "leaky relu": alone("QLinearLeakyRelu", alpha=0.1),
    "leaky relu signed": alone("QLinearLeakyRelu", SIGNED),
    "softmax": alone(
        "QLinearSoftmax", TOLD | {"ys": np.float32(1 / 255), "yz": np.uint8(0)}, axis=1, opset=17
    ),
    "softmax of rows": alone(
        "QLinearSoftmax", TOLD | {"ys": np.float32(1 / 255), "yz": np.uint8(0)}, axis=2, opset=11
    ),
    "average pool": alone("QLinearAveragePool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
    "average pool with borders": alone(
        "QLinearAveragePool", SIGNED, kernel_shape=[3, 2], pads=[1] * 4, count_include_pad=1
    ),
    "average pool, channels last": alone(
        "QLinearAveragePool", kernel_shape=[3, 3], pads=[1] * 4, channels_last=1
    ),
    "global pool": alone("QLinearGlobalAveragePool"),
    "global pool, channels last": alone("QLinearGlobalAveragePool", channels_last=1),
    "concat": (
        [node("QLinearConcat", ["ys", "yz", "x", "xs", "xz", "b", "bs", "bz"], axis=1)],
        {"x": (UINT8, X4), "b": (UINT8, (1, 2, 6, 8))},
        TOLD | BOTH,
    ),
    "where": (
        [node("QLinearWhere", ["c", "x", "xs", "xz", "b", "bs", "bz", "ys", "yz"])],
        {"c": (9, (6, 8)), "x": (UINT8, X4), "b": (UINT8, X4)},
        TOLD | BOTH,
    ),
    "quantize": ([node("QuantizeLinear", ["x", "xs", "xz"])], {"x": (FLOAT, X4)},
                 {"xs": TOLD["xs"], "xz": TOLD["xz"]}),
    "quantize by axis": (
        [node("QuantizeLinear", ["x", "s", "z"], axis=1)],
        {"x": (FLOAT, X4)},
        {"s": np.abs(normal(4)) + np.float32(0.01), "z": whole(np.uint8, 4)},
    ),
    "dequantize": ([node("DequantizeLinear", ["x", "xs"])], {"x": (INT8, X4)},
                   {"xs": TOLD["xs"]}),
    "max pool, channels last": (
        [node("NhwcMaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)],
        {"x": (UINT8, (1, 6, 8, 4))},
        {},
    ),
    "conv": conv({}, pads=[1] * 4),
    "conv without bias": conv({}, bias=False, strides=[2, 2]),
    "conv by channel": conv(COLUMNS),
    "conv in groups": conv(COLUMNS | {"w": whole(np.int8, 8, 2, 3, 3)}, group=2),
    "conv, channels last": conv(COLUMNS, domain=MICROSOFT, channels_last=1, pads=[1] * 4),
    "gemm": gemm({"c": BIAS["b"]}, [*PRODUCT, "c", "ys", "yz"]),
    "gemm by column": gemm(COLUMNS | {"c": BIAS["b"]}, [*PRODUCT, "c", "ys", "yz"], alpha=0.5),
    "gemm by row": gemm(TURNED, [*PRODUCT, "", "ys", "yz"], transB=1),
    "gemm to floats": gemm({"c": BIAS["b"]}, [*PRODUCT, "c"]),
    "attention": attention(),
    "attention by column": attention("mask", columns=True),
    "attention forward": attention("mask", "forward"),
    "4 bits": few_bits(4),
    "4 bits with zero points": few_bits(4, "z", "b", depth=80),
    "8 bits": few_bits(8, "z"),
    "dynamic": ([node("DynamicQuantizeMatMul", ["x", "w", "ws"])], {"x": (FLOAT, (2, 5, 24))},
                DYNAMIC),
    "dynamic by column": (
        [node("DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "b"])],
        {"x": (FLOAT, (2, 5, 24))},
        DYNAMIC | {"ws": COLUMNS["ws"], "wz": whole(np.int8, 8), "b": normal(8)},
    ),
    "to floats": (
        [node("MatMulIntegerToFloat", ["x", "w", "xs", "ws", "xz", "wz", "b"])],
        {"x": (UINT8, (5, 24))},
        DYNAMIC | {"xs": TOLD["xs"], "xz": TOLD["xz"], "wz": np.int8(3), "b": normal(8)},
    ),
    "to floats without zero points": (
        [node("MatMulIntegerToFloat", ["x", "w", "xs", "ws"])],
        {"x": (UINT8, (5, 24))},
        DYNAMIC | {"xs": TOLD["xs"]},
    ),
    "integers": (
        [helper.make_node("MatMulInteger", ["x", "w", "z"], ["y"])],
        {"x": (UINT8, (5, 24)), "z": (UINT8, ())},
        {"w": DYNAMIC["w"]},
    ),
    "integers, signed": (
        [helper.make_node("MatMulInteger", ["x", "w", "z", "wz"], ["y"])],
        {"x": (INT8, (3, 5, 24)), "z": (INT8, (1,))},
        {"w": DYNAMIC["w"], "wz": whole(np.int8, 8)},
    ),
    "integers, long": (
        [helper.make_node("MatMulInteger", ["x", "w", "xz"], ["y"])],
        {"x": (UINT8, (5, 4000))},
        {"w": whole(np.int8, 4000, 8), "xz": np.uint8(7)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_standard_has_the_same(tmp_path: Path, name: str) -> None:
    nodes, inputs, constants = CASES[name]
    assert agreement(written(tmp_path, nodes, inputs, constants)) < 1e-2


COMPILED = (
    "add", "average pool", "conv, channels last", "gemm by column", "attention by column",
    "4 bits with zero points", "dynamic by column", "integers, signed",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_it_computes_the_same(tmp_path: Path, name: str) -> None:
    nodes, inputs, constants = CASES[name]
    model = import_model(written(tmp_path, nodes, inputs, constants))
    assert model.stage == "simplified"
    assert verify_import(model).error < 1e-2


def test_scales_by_channel_before_opset_13(tmp_path: Path) -> None:
    """Where DequantizeLinear had no axis yet, and QLinearConv had scales by channel."""
    model = import_model(written(tmp_path, *conv(COLUMNS, pads=[1] * 4), opset=10))
    assert verify_import(model).error < 1e-2


def test_one_number_may_be_a_step_off_and_not_all_of_them(tmp_path: Path) -> None:
    model = import_model(written(tmp_path, *CASES["add"]))
    inputs = random_inputs(model.inputs, 0)
    expected = model.reference(inputs)
    one, all_of_them, far = ({"y": expected["y"].copy()} for _ in range(3))
    one["y"].flat[0] += 1
    all_of_them["y"] += 1
    far["y"].flat[0] += 2
    assert check_outputs(model, inputs, expected, one).error > 0
    for wrong in (all_of_them, far):
        with pytest.raises(Disagreement):
            check_outputs(model, inputs, expected, wrong)


def test_what_ends_onnx_runtime_is_refused_before(tmp_path: Path) -> None:
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "t": np.float32(0.2)}
    leaky = node("QLinearLeakyRelu", ["x", "s", "z", "t"], alpha=0.1)
    path = written(tmp_path, [leaky], {"x": (UINT8, (4, 4))}, constants)
    with pytest.raises(ModelError, match="whose result has no zero point"):
        import_model(path)
