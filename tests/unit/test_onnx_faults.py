"""What is wrong with a model file or its shapes is said in one sentence that names the cure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.errors import InputError, ModelError, UserError
from autotune.frontends.onnx_file import digest_of_import, fix_shapes, graph_inputs, read_onnx

Open = list[int | str | None]


def small(shape: Open, external: bool = False) -> onnx.ModelProto:
    """One MatMul: x of ``shape`` by a weight of 8 × 4."""
    weight = np.arange(32, dtype=np.float32).reshape(8, 4)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return path


def sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_onnx(tmp_path / "none.onnx")
    assert "no file" in sentence(error)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_onnx(tmp_path)
    assert "is a directory" in sentence(error)


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 50, bytes(range(256))])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_onnx(path)
    assert "is not an ONNX model" in sentence(error)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, small([1, 8]))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as error:
        read_onnx(path)
    assert "ONNX model" in sentence(error)


def test_a_model_that_no_one_can_run(tmp_path: Path) -> None:
    proto = small([1, 8])
    proto.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ModelError) as error:
        read_onnx(saved(tmp_path, proto))
    assert "not a valid ONNX model" in sentence(error)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_scales_for_each_channel_before_they_were_defined(tmp_path: Path, axis: int | None) -> None:
    proto = small([2, 8])
    del proto.graph.initializer[:]
    constants = {"q": np.zeros((8, 4), np.int8), "s": np.ones(8 if axis != 1 else 4, np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    named = {} if axis is None else {"axis": axis}
    made = helper.make_node("DequantizeLinear", ["q", "s"], ["w"], name="wide", **named)
    proto.graph.node.insert(0, made)
    proto.opset_import[0].version = 12
    with pytest.raises(ModelError) as error:
        read_onnx(saved(tmp_path, proto))
    text = sentence(error)
    assert "DequantizeLinear wide" in text and "opset 13" in text and "opset 12" in text
    if axis is not None:
        proto = onnx.version_converter.convert_version(proto, 13)
        assert read_onnx(saved(tmp_path, proto)).proto.opset_import[0].version == 13


def test_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small([1, 8]), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    file = read_onnx(path)
    assert file.external
    assert numpy_helper.to_array(file.proto.graph.initializer[0])[1, 0] == 4.0
    content = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(content[:-8] + bytes(8))
    assert read_onnx(path).digest != file.digest, "the digest covers the weights beside the file"
    (tmp_path / "w.bin").write_bytes(content[:-8])
    with pytest.raises(ModelError, match="copy it again"):
        read_onnx(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError) as error:
        read_onnx(path)
    assert "w.bin, which is missing" in sentence(error)


def test_open_dimensions_are_asked_for_by_the_option_that_gives_them() -> None:
    with pytest.raises(InputError) as error:
        fix_shapes(small(["batch", 8]), {})
    assert "--input x=?,8" in sentence(error)
    with pytest.raises(InputError, match="--input x=-?"):
        fix_shapes(small([-1, 8]), {})


def test_shapes_are_fixed_and_the_original_is_left_alone() -> None:
    proto = small(["batch", 8])
    fixed = fix_shapes(proto, {"x": (3, 8)})
    dims = graph_inputs(fixed)[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [3, 8]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (1, 8)}, "no input 'z': its inputs are x"),
        ({"w": (8, 4)}, "no input 'w'"),
        ({"x": (1, 8, 1)}, "2 dimensions"),
        ({"x": (1, 9)}, "fixes dimension 1 at 8"),
        ({"x": (0, 8)}, "1 or more"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(InputError) as error:
        fix_shapes(small(["batch", 8]), shapes)
    assert words in sentence(error)


def test_the_digest_is_of_bytes_and_shapes(tmp_path: Path) -> None:
    file = read_onnx(saved(tmp_path, small(["batch", 8])))
    one, two = (digest_of_import(file.digest, {"x": (n, 8)}) for n in (1, 2))
    assert one != two
    assert one == digest_of_import(read_onnx(file.path).digest, {"x": (1, 8)})
