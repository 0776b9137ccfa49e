"""Weights that are too many for a message stay in their files until they are bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.errors import ModelError
from autotune.frontends import import_model, onnx_weights, verify_import
from autotune.frontends.onnx_file import graph_inputs, read_onnx
from autotune.inspection import inspect


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two products, as if more than a kilobyte were too much; the offsets are below that."""
    monkeypatch.setattr(onnx_weights, "MOST", 1024)
    monkeypatch.setattr(onnx_weights, "LARGE", 512)
    rng = np.random.default_rng(0)
    constants = {
        "onnx::w_1": rng.standard_normal((8, 32)).astype(np.float32),
        "b": rng.standard_normal(32).astype(np.float32),
        "v": rng.standard_normal((32, 16)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "onnx::w_1", "b"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_only_small_ones_are_read(model: Path) -> None:
    tensors = {tensor.name: tensor for tensor in read_onnx(model).proto.graph.initializer}
    assert onnx_weights.is_apart(tensors["v"]) and not tensors["v"].raw_data
    assert onnx_weights.is_apart(tensors["onnx::w_1"])
    assert numpy_helper.to_array(tensors["b"]).shape == (32,)


def test_they_are_bound_to_the_module(model: Path) -> None:
    imported = import_model(model, {"x": (3, 8)})
    assert [spec.name for spec in imported.inputs] == ["x"]
    assert len(imported.module["main"].params) == 1
    assert verify_import(imported).error < 1e-5


def test_inspect_counts_them(model: Path) -> None:
    found = inspect(model, {"x": (3, 8)})
    assert found.stage == "simplified" and not found.reason
    assert found.parameters == 8 * 32 + 32 + 32 * 16
    assert found.flops == 2 * 3 * (8 * 32 + 32 * 16)


def test_equal_digests_whether_apart_or_not(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = import_model(model, {"x": (3, 8)}).digest
    monkeypatch.setattr(onnx_weights, "MOST", 1 << 30)
    assert import_model(model, {"x": (3, 8)}).digest == apart


def test_an_outline_has_every_shape_and_no_large_weight(model: Path) -> None:
    proto = onnx.load(model)
    made = onnx_weights.outline(proto)
    kept = {tensor.name: tensor for tensor in made.graph.initializer}
    assert {name: list(tensor.dims) for name, tensor in kept.items()} == {
        tensor.name: list(tensor.dims) for tensor in proto.graph.initializer
    }
    assert not kept["v"].raw_data and kept["b"].raw_data
    assert [value.name for value in graph_inputs(made)] == ["x"]
    assert onnx_weights.with_inputs(proto, onnx_weights.is_large) is not proto
    onnx.checker.check_model(onnx_weights.with_inputs(proto, onnx_weights.is_large))


def test_a_file_that_changes_after_its_import_is_a_sentence(model: Path) -> None:
    imported = import_model(model, {"x": (3, 8)})
    proto = onnx.load(model)
    proto.producer_name = "another"
    onnx.save(proto, model)
    with pytest.raises(ModelError, match="was changed while it was compiled"):
        imported.reference.double({"x": np.zeros((3, 8), np.float32)})  # type: ignore[attr-defined]
    assert imported.again() is None


def test_a_file_that_is_cut_short_is_a_sentence(model: Path) -> None:
    weights = model.parent / "w.bin"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="copy it again"):
        read_onnx(model)
