"""Operators that ONNX Runtime's optimiser makes of several, option by option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from autotune.errors import ModelError
from autotune.frontends import import_model, verify_import
from tests.compiler.contrib import FLOAT, INT32, agreement, node, written
from tests.compiler.onnx_written import normal, whole

X3 = (2, 5, 16)
X4 = (1, 4, 6, 8)
HEADS = {"num_heads": 4}
QKV = {"w": normal(16, 48, scale=0.4), "b": normal(48)}
NORM = {"g": normal(16) + 1, "s": normal(16), "b": normal(16)}
ANGLES = np.arange(40, dtype=np.float32).reshape(10, 4) / 7
ROTARY = {"c": np.cos(ANGLES), "i": np.sin(ANGLES)}
KERNEL = {"w": normal(8, 4, 3, 3), "b": normal(8)}


def alone(operator: str, *names: str, **attributes: Any) -> Any:
    """Of x, and constants of its last axis."""
    constants = {name: normal(16) for name in names}
    return [node(operator, ["x", *names], **attributes)], {"x": (FLOAT, X3)}, constants


def conv(*more: str, **attributes: Any) -> Any:
    inputs: Any = {"x": (FLOAT, X4)} | ({"z": (FLOAT, (1, 8, 6, 8))} if more else {})
    made = node("FusedConv", ["x", "w", "b", *more], pads=[1] * 4, **attributes)
    return [made], inputs, KERNEL


def matmul(a: Any, b: Any, operator: str = "FusedMatMul", **attributes: Any) -> Any:
    made = node(operator, ["x", "w"], **attributes)
    return [made], {"x": (FLOAT, a), "w": (FLOAT, b)}, {}


def attention(*more: str, mask: Any = None, outputs: Any = ("y",), **attributes: Any) -> Any:
    inputs: Any = {"x": (FLOAT, X3)}
    kinds = {"mask": (INT32, mask), "past": (FLOAT, (2, 2, 4, 3, 4)), "add": (FLOAT, (1, 4, 5, 5))}
    inputs |= {name: kinds[name] for name in more if name in kinds}
    made = node("Attention", ["x", "w", "b", *more], *outputs, **HEADS, **attributes)
    return [made], inputs, QKV, outputs


def multi_head(*more: str, keys: int = 5, mask: Any = None, **attributes: Any) -> Any:
    depth = 16 if "pk" in more else 24  # ONNX Runtime caches no values of another size
    inputs: Any = {"q": (FLOAT, X3), "k": (FLOAT, (2, keys, 16)), "v": (FLOAT, (2, keys, depth))}
    kinds = {"mask": (INT32, mask), "add": (FLOAT, (2, 1, 5, keys)),
             "pk": (FLOAT, (2, 4, 3, 4)), "pv": (FLOAT, (2, 4, 3, 4))}  # fmt: skip
    inputs |= {name: kinds[name] for name in more if name in kinds}
    constants = {"b": normal(32 + depth)} if "b" in more else {}
    outputs = ("y", "nk", "nv") if "pk" in more else ("y",)
    made = node("MultiHeadAttention", ["q", "k", "v", *more], *outputs, **HEADS, **attributes)
    return [made], inputs, constants, outputs


def embedded(*more: str, outputs: Any = ("y", "n")) -> Any:
    kinds = {"mask": (INT32, (2, 5)), "at": (INT32, (2, 5))}
    constants = {"t": normal(30, 16), "p": normal(7, 16), "k": normal(2, 16)} | NORM
    names = ["x", "of", "t", "p", "k", "g", "s", *more]
    inputs = {"x": (INT32, (2, 5)), "of": (INT32, (2, 5))}
    inputs |= {name: kinds[name] for name in more if name in kinds}
    return [node("EmbedLayerNormalization", names, *outputs)], inputs, constants, outputs


def words_in_bytes(mask: str = "") -> Any:
    tables = {"t": (30, 16), "p": (7, 16), "k": (2, 16), "g": (16,), "s": (16,)}
    constants: dict[str, Any] = {n: whole(np.uint8, *shape) for n, shape in tables.items()}
    constants |= {f"{n}s": np.float32(0.01 * i + 0.02) for i, n in enumerate(tables)}
    constants |= {f"{n}z": np.uint8(100 + 9 * i) for i, n in enumerate(tables)}
    names = ["x", "of", *tables, mask, *(f"{n}{part}" for part in "sz" for n in tables)]
    inputs = {name: (INT32, (2, 5)) for name in ("x", "of", mask) if name}
    made = node("QEmbedLayerNormalization", names, "y", "n")
    return [made], inputs, constants, ("y", "n")


def rotary(shape: Any, places: Any, **attributes: Any) -> Any:
    made = node("RotaryEmbedding", ["x", "p", "c", "i"], **attributes)
    return [made], {"x": (FLOAT, shape)}, ROTARY | {"p": np.asarray(places, np.int64)}


def simplified(opset: int) -> Any:
    made = helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["y"], epsilon=1e-6)
    return [made], {"x": (FLOAT, X3)}, {"g": NORM["g"]}, ("y",), opset


def skip(operator: str, names: list[str], *outputs: str, opset: int = 17) -> Any:
    inputs = {"x": (FLOAT, X3), "z": (FLOAT, X3)}
    constants = {name: NORM[name] for name in names if name in NORM}
    told = outputs or ("y",)
    made = node(operator, names, *told, epsilon=1e-5)
    return [made], inputs, constants, tuple(name for name in told if name), opset


SKIP, SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"
TURNS = [(0, [0, 1]), (1, [1, 0])]

CASES: dict[str, Any] = {
    "gelu": alone("Gelu"),
    "bias gelu": alone("BiasGelu", "b"),
    "fast gelu": alone("FastGelu"),
    "fast gelu with a bias": alone("FastGelu", "b"),
    "quick gelu": alone("QuickGelu", alpha=1.5),
    "silu": alone("QuickGelu", alpha=1.0),
    "conv relu": conv(activation="Relu"),
    "conv clip": conv(activation="Clip", activation_params=[0.0, 0.6]),
    "conv leaky": conv(activation="LeakyRelu", activation_params=[0.2]),
    "conv hard": conv(activation="HardSigmoid", activation_params=[0.3, 0.4]),
    "conv sum": conv("z", activation="Relu"),
    "conv alone": conv(),
    "gemm": (
        [node("FusedGemm", ["x", "w", "b"], activation="LeakyRelu", activation_alpha=0.1,
              transB=1, alpha=0.5)],
        {"x": (FLOAT, (3, 16))}, {"w": normal(8, 16), "b": normal(8)},
    ),
    "matmul": matmul((2, 3, 4), (2, 4, 5), alpha=0.125),
    "matmul turned": matmul((2, 4, 3), (2, 5, 4), transA=1, transB=1),
    "matmul of old": matmul((2, 3, 4), (2, 5, 4), "TransposeMatMul", transB=1, alpha=2.0),
    "matmul batch turned": matmul((3, 2, 4), (2, 4, 5), transBatchA=1),
    "matmul all turned": matmul((4, 2, 3), (2, 4, 5), transBatchA=1, transA=1),
    "matmul other turned": matmul((2, 3, 4), (5, 2, 4), transBatchB=1, transB=1),
    "skip": skip(SKIP, ["x", "z", "g", "s"]),
    "skip with all": skip(SKIP, ["x", "z", "g", "s", "b"], "y", "", "", "sum"),
    "skip before it was standard": skip(SKIP, ["x", "z", "g", "s", "b"], opset=12),
    "skip simplified": skip(SIMPLE, ["x", "z", "g", "b"], "y", "", "", "sum"),
    "simplified": simplified(17),
    "simplified long ago": simplified(11),
    "layer long ago": (
        [helper.make_node("LayerNormalization", ["x", "g", "s"], ["y"], axis=2)],
        {"x": (FLOAT, X3)}, NORM, ("y",), 11,
    ),
    "embedded": embedded(),
    "embedded with a mask": embedded("mask"),
    "embedded at places": embedded("mask", "at", outputs=("y", "n", "sum")),
    "attention": attention(),
    "attention scaled": attention(scale=0.3),
    "attention forward": attention(unidirectional=1),
    "attention mask": attention("mask", mask=(2, 5)),
    "attention mask of rows": attention("mask", mask=(2, 5, 5), mask_filter_value=-50.0),
    "attention ends": attention("mask", mask=(2,)),
    "attention ends and starts": attention("mask", mask=(4,)),
    "attention mask forward": attention("mask", mask=(2, 5), unidirectional=1),
    "attention past": attention("", "past", outputs=("y", "present"), unidirectional=1),
    "attention past and mask": attention("mask", "past", mask=(2, 8), outputs=("y", "present")),
    "attention bias": attention("", "", "add"),
    "attention of other values": (
        [node("Attention", ["x", "w", "b"], qkv_hidden_sizes=[16, 16, 24], **HEADS)],
        {"x": (FLOAT, X3)}, {"w": normal(16, 56), "b": normal(56)},
    ),
    "heads": multi_head(),
    "heads bias": multi_head("b"),
    "heads across": multi_head("b", keys=7),
    "heads mask": multi_head("", "mask", keys=7, mask=(2, 7)),
    "heads ends": multi_head("", "mask", keys=7, mask=(2,)),
    "heads add": multi_head("", "", "add", keys=7),
    "heads past": multi_head("", "", "", "pk", "pv"),
    "heads past forward": multi_head("b", "", "", "pk", "pv", unidirectional=1),
    "words in 8 bits": words_in_bytes(),
    "words in 8 bits with a mask": words_in_bytes("mask"),
    "rotary": rotary((2, 5, 16), [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
    "rotary from a place": rotary((2, 5, 16), [3]),
    "rotary pairs": rotary((2, 5, 16), [3], interleaved=1),
    "rotary heads": rotary((2, 3, 5, 8), [3]),
    "rotary part": rotary((2, 3, 5, 12), [1], rotary_embedding_dim=8, num_heads=3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_standard_has_the_same(tmp_path: Path, name: str) -> None:
    assert agreement(written(tmp_path, *CASES[name])) < 1e-4


COMPILED = (
    "bias gelu", "conv sum", "gemm", "matmul all turned", "skip with all", "simplified long ago",
    "embedded at places", "attention past and mask", "heads past forward", "words in 8 bits",
    "rotary part",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_it_computes_the_same(tmp_path: Path, name: str) -> None:
    model = import_model(written(tmp_path, *CASES[name]))
    assert model.stage == "simplified"
    assert verify_import(model).error < 1e-4


def test_what_is_not_known_is_refused_with_the_reason(tmp_path: Path) -> None:
    nodes, inputs, constants, outputs = attention("mask", mask=(2, 1, 9, 9))
    with pytest.raises(ModelError, match=r"com.microsoft.Attention \(1×\) \(Attention with a mask"):
        import_model(written(tmp_path, nodes, inputs, constants, outputs))
    made = helper.make_node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")
    path = written(tmp_path, [made], {"x": (FLOAT, X4)}, {"w": KERNEL["w"]})
    with pytest.raises(ModelError, match="ORT_ENABLE_EXTENDED in place of ORT_ENABLE_ALL"):
        import_model(path)
