"""`autotune inspect` tells what a model is before anything is tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.cli.main import main
from autotune.errors import ModelError
from autotune.inspection import REFUSED, inspect


def model(folder: Path, batch: int | str = 2, operator: str = "Relu") -> Path:
    """x of [batch, 4] through a MatMul, an LSTM of one step and ``operator``."""
    node = helper.make_node
    weights = {
        "w": np.ones((4, 8), np.float32),
        "shape": np.array([1, -1, 8]),
        "lw": np.ones((1, 12, 8), np.float32),
        "lr": np.ones((1, 12, 3), np.float32),
    }
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Reshape", ["m", "shape"], ["s"]),
            node("LSTM", ["s", "lw", "lr"], ["h"], hidden_size=3),
            node(operator, ["h"], ["y"]),
        ],
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "made.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_model_is_described(tmp_path: Path) -> None:
    found = inspect(model(tmp_path))
    assert found.inputs[0].shape == (2, 4) and found.inputs[0].dtype == "float32"
    stages = {entry.name: entry.stage for entry in found.operators}
    assert stages == {
        "MatMul": "simplified",
        "Reshape": "simplified",
        "LSTM": "rewritten",
        "Relu": "simplified",
    }
    assert found.parameters == 32 + 3 + 96 + 36
    assert found.flops == 2 * (2 * 4 * 8) + 2 * 2 * (12 * 8 + 12 * 3)
    assert (found.stage, found.reason, found.open, found.unsupported) == ("rewritten", "", (), ())
    assert found.notes == ("rewritten: LSTM",)


def test_open_dimensions_are_named_and_can_be_given(tmp_path: Path) -> None:
    path = model(tmp_path, "batch")
    found = inspect(path)
    assert found.open == ("x",)
    assert found.inputs[0].shape == ("batch", 4)
    assert "--input x=?,4" in found.reason
    assert inspect(path, {"x": (3, 4)}).stage == "rewritten"


def test_what_is_not_supported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model(tmp_path, operator="Bernoulli")
    assert inspect(path).unsupported == ("Bernoulli",)
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(path), "--json"])
    assert end.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["unsupported"] == ["Bernoulli"] and "Bernoulli (1×)" in told["reason"]
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(path)])
    assert end.value.code == 1
    assert f"{REFUSED}: Bernoulli" in capsys.readouterr().out


def test_the_command_prints_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(model(tmp_path))])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for part in ("LSTM", "rewritten", "167 parameters", "2x4", "not compared"):
        assert part in told


def test_no_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        inspect(tmp_path / "none.onnx")
