"""Quotients and rests of integers and floats, in the forms that torch's exporters write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.frontends import import_model, verify_import
from autotune.frontends.verify import naive_build

node = helper.make_node
SIGNED = ["int8", "int16", "int32", "int64"]
INTEGERS = [*SIGNED, "uint8", "uint32"]


def ran(
    folder: Path,
    nodes: list[onnx.NodeProto],
    given: dict[str, Any],
    constants: dict[str, Any] | None = None,
) -> Any:
    """What ``y`` is for the inputs ``given``, once the import was compared with the original."""
    path = folder / "made.onnx"
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(n, kinds[n], given[n].shape) for n in given],
        [helper.make_tensor_value_info("y", kinds["x"], given["x"].shape)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    model = import_model(path)
    verify_import(model)
    return naive_build(model)(given)["y"]


def numbers(dtype: str) -> Any:
    return np.arange(0 if dtype.startswith("u") else -9, 9).astype(dtype)


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("divisor", [3, -3])
def test_a_floored_quotient(tmp_path: Path, dtype: str, divisor: int) -> None:
    """x // 3 by torch's newer exporter: one less where a rest is left and signs are not equal."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Less", ["x", "zero"], ["negative"]),
        node("Equal", ["negative", "positive"], ["unlike"]),
        node("Mod", ["x", "by"], ["rest"]),
        node("Cast", ["rest"], ["left"], to=TensorProto.BOOL),
        node("And", ["unlike", "left"], ["lower"]),
        node("Cast", ["lower"], ["one"], to=kind),
        node("Div", ["x", "by"], ["cut"]),
        node("Sub", ["cut", "one"], ["y"]),
    ]
    constants = {
        "zero": np.zeros((), dtype),
        "by": np.asarray(divisor, dtype),
        "positive": np.asarray(divisor > 0),
    }
    x = numbers(dtype)
    y = ran(tmp_path, nodes, {"x": x}, constants)
    assert y.dtype == x.dtype
    assert (y == x // np.asarray(divisor, dtype)).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_rest_has_the_sign_of_the_divisor(tmp_path: Path, dtype: str) -> None:
    x, three = numbers(dtype), np.asarray(3, dtype)
    assert (
        ran(tmp_path, [node("Mod", ["x", "by"], ["y"])], {"x": x}, {"by": three}) == x % 3
    ).all()
    if dtype in SIGNED:
        y = ran(tmp_path, [node("Mod", ["x", "by"], ["y"])], {"x": x}, {"by": -three})
        assert (y == x % -three).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats(tmp_path: Path, dtype: str) -> None:
    """x // 2.5 and x % 2.5 as both exporters write them."""
    x, by = (np.arange(-9, 9) * 1.3 + 0.1).astype(dtype), np.asarray(2.5, dtype)
    floored = [node("Div", ["x", "by"], ["q"]), node("Floor", ["q"], ["f"])]
    y = ran(tmp_path, [*floored, node("Identity", ["f"], ["y"])], {"x": x}, {"by": by})
    assert (y == x // by).all()
    left = [*floored, node("Mul", ["f", "by"], ["m"]), node("Sub", ["x", "m"], ["y"])]
    assert np.allclose(ran(tmp_path, left, {"x": x}, {"by": by}), x % by, atol=1e-5)


def quotient(a: int, b: int) -> int:
    """Its fraction cut off."""
    size = abs(a) // abs(b) if b else 0
    return size if (a < 0) == (b < 0) else -size


def rest(a: int, b: int) -> int:
    return a % b if b else 0


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("operator", ["Div", "Mod"])
def test_any_divisor(tmp_path: Path, dtype: str, operator: str) -> None:
    """None ends the process: by zero the result is zero, by minus one what has no place wraps."""
    limits = np.iinfo(dtype)
    x = np.array([limits.min, limits.min, 7, limits.max, limits.max, 7], dtype)
    if dtype[0] == "u":
        by = np.array([0, 1, 0, 3, limits.max, 2], dtype)
    else:
        by = np.array([-1, 0, 0, 3, -1, -2], dtype)
    y = ran(tmp_path, [node(operator, ["x", "by"], ["y"])], {"x": x, "by": by})
    of = quotient if operator == "Div" else rest
    exact = [of(int(a), int(b)) % (1 << 8 * x.itemsize) for a, b in zip(x, by, strict=True)]
    assert (y == np.array(exact, f"uint{8 * x.itemsize}").view(dtype)).all()
