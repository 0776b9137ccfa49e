"""Imported models compute what ONNX Runtime computes, in a form that fuses; others are refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.errors import ModelError
from autotune.frontends import ImportedModel, import_model, verify_import
from autotune.frontends.onnx_prepare import inline
from autotune.frontends.sampling import random_inputs
from autotune.frontends.verify import naive_build, scaled_error

FLOAT = TensorProto.FLOAT


def imported(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, tuple[int, ...]]],
    constants: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> ImportedModel:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = FLOAT
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    proto = helper.make_model(graph, opset_imports=domains, ir_version=8)
    path = folder / "made.onnx"
    path.write_bytes(proto.SerializeToString())
    return import_model(path)


def operators(model: ImportedModel) -> Counter[str]:
    blocks = model.module["main"].body.blocks
    values = [binding.value for block in blocks for binding in block.bindings]
    return Counter(value.op.name for value in values if hasattr(value, "op"))


def constants_of_rank(model: ImportedModel) -> list[int]:
    """The ranks of the constants that operators of ``model`` take."""
    from tvm.ir import GenericConst

    blocks = model.module["main"].body.blocks
    values = [binding.value for block in blocks for binding in block.bindings]
    arguments = [a for v in values if hasattr(v, "args") for a in v.args]
    return [a.ty.ndim for a in arguments if isinstance(a, GenericConst)]


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        pytest.param(
            [helper.make_node("Clip", ["x", "low", "high"], ["y"])],
            {"low": np.float32(-0.2), "high": np.float32(0.3)},
            {"relax.clip": 1},
            id="clip",
        ),
        pytest.param(
            [helper.make_node("Clip", ["x", "low"], ["y"])],
            {"low": np.float32(-0.2)},
            {"relax.maximum": 1},
            id="clip from below",
        ),
        pytest.param(
            [helper.make_node("Clip", ["x", "", "high"], ["y"])],
            {"high": np.float32(0.1)},
            {"relax.minimum": 1},
            id="clip from above",
        ),
        pytest.param(
            [helper.make_node("Sum", ["x", "z"], ["y"])], {}, {"relax.add": 1}, id="sum of two"
        ),
        pytest.param(
            [helper.make_node("Sum", ["x", "z", "x"], ["y"])], {}, {"relax.add": 2}, id="of three"
        ),
        pytest.param(
            [helper.make_node("Max", ["x", "z"], ["y"])], {}, {"relax.maximum": 1}, id="max"
        ),
        pytest.param(
            [helper.make_node("Min", ["x", "z"], ["y"])], {}, {"relax.minimum": 1}, id="min"
        ),
        pytest.param(
            [helper.make_node("Mean", ["x", "z"], ["y"])],
            {},
            {"relax.add": 1, "relax.divide": 1},
            id="mean",
        ),
    ],
)
def test_operators_import_in_the_form_that_fuses(
    tmp_path: Path, nodes: Any, constants: Any, expected: dict[str, int]
) -> None:
    inputs = {"x": (FLOAT, (2, 3, 4, 5)), "z": (FLOAT, (1, 3, 1, 1))}
    model = imported(tmp_path, nodes, inputs, constants)
    assert operators(model) == expected
    verify_import(model)


def test_constants_of_one_element_lose_their_axes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["a"]),
        helper.make_node("Sub", ["d", "a"], ["y"]),
    ]
    constants = {"c": np.full((1, 1, 1, 1), 3, np.float32), "d": np.full((1,), 2, np.float32)}
    model = imported(tmp_path, nodes, {"x": (FLOAT, (1, 3, 4, 5))}, constants)
    assert constants_of_rank(model) == [0, 0]
    verify_import(model)


def test_a_constant_of_more_axes_than_the_data_keeps_them(tmp_path: Path) -> None:
    constants = {"c": np.full((1, 1, 1), 3, np.float32)}
    nodes = [helper.make_node("Mul", ["x", "c"], ["y"])]
    model = imported(tmp_path, nodes, {"x": (FLOAT, (4,))}, constants)
    assert model.outputs[0].shape == (1, 1, 4)
    verify_import(model)


def test_a_gather_takes_negative_indices_and_its_bound_is_known(tmp_path: Path) -> None:
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    nodes = [helper.make_node("Gather", ["t", "i"], ["y"])]
    model = imported(tmp_path, nodes, {"i": (TensorProto.INT64, (3,))}, {"t": table})
    assert model.inputs[0].upper == 5
    assert random_inputs(model.inputs, 0)["i"].max() < 5
    assert not {"relax.shape_of", "relax.shape_to_tensor"} & set(operators(model))
    given = {"i": np.array([-1, 0, -5], np.int64)}
    assert np.array_equal(naive_build(model)(given)["y"], table[[-1, 0, -5]])
    assert np.array_equal(model.reference(given)["y"], table[[-1, 0, -5]])


def test_inputs_that_nothing_reads_are_still_taken(tmp_path: Path) -> None:
    inputs = {"unread": (FLOAT, (2,)), "x": (FLOAT, (3,)), "last": (FLOAT, (1,))}
    model = imported(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], inputs)
    assert [spec.name for spec in model.inputs] == list(inputs)
    assert len(model.module["main"].params) == 3
    verify_import(model)


def test_several_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["b"]), helper.make_node("Neg", ["x"], ["a"])]
    model = imported(tmp_path, nodes, {"x": (FLOAT, (3,))}, outputs=("b", "a"))
    assert [spec.name for spec in model.outputs] == ["b", "a"]
    given = {"x": np.array([-1, 0, 2], np.float32)}
    results = naive_build(model)(given)
    assert results["b"].tolist() == [0, 0, 2] and results["a"].tolist() == [1, 0, -2]


def test_all_unsupported_operators_are_named_at_once_with_their_counts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Multinomial", ["x"], ["a"]),
        helper.make_node("Multinomial", ["x"], ["b"]),
        helper.make_node("Foo", ["x"], ["c"], domain="com.example"),
        helper.make_node("Add", ["a", "b"], ["d"]),
        helper.make_node("Add", ["d", "c"], ["y"]),
    ]
    with pytest.raises(ModelError) as error:
        imported(tmp_path, nodes, {"x": (FLOAT, (3, 3))})
    assert "Multinomial (2×)" in str(error.value) and "com.example.Foo (1×)" in str(error.value)


def test_operators_that_onnx_defines_by_functions_are_inlined(tmp_path: Path) -> None:
    nodes = [helper.make_node("CenterCropPad", ["x", "s"], ["y"], axes=[1])]
    size = {"s": np.array([4], np.int64)}
    model = imported(tmp_path, nodes, {"x": (FLOAT, (2, 8))}, size, opset=18)
    assert "inlined: CenterCropPad" in model.notes
    verify_import(model)


def test_inlining_leaves_the_model_given_alone(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mish", ["x"], ["z"]), helper.make_node("Softplus", ["z"], ["y"])]
    imported(tmp_path, nodes, {"x": (FLOAT, (2, 8))}, opset=18)
    proto = onnx.load(tmp_path / "made.onnx")
    before = proto.SerializeToString(deterministic=True)
    every = {node.op_type for node in inline(proto).graph.node}
    one = {node.op_type for node in inline(proto, {"Mish"}).graph.node}
    assert proto.SerializeToString(deterministic=True) == before
    assert not {"Mish", "Softplus"} & every
    assert "Mish" not in one and "Softplus" in one


def test_a_model_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    model = imported(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, (4, 4))})

    def wrong(given: ImportedModel) -> Any:
        right = naive_build(given)
        return lambda inputs: {name: a * np.float32(1.001) for name, a in right(inputs).items()}

    with pytest.raises(ModelError, match="output y differs from onnxruntime's by 0.001"):
        verify_import(model, wrong)
    assert verify_import(model).error == 0


def test_a_float64_result_far_from_onnx_runtime_settles_nothing(tmp_path: Path) -> None:
    model = imported(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, (4, 4))})

    class Both:
        """A reference whose two answers contradict each other."""

        engine = "onnxruntime"

        def __call__(self, inputs: Any) -> dict[str, Any]:
            return {"y": inputs["x"] + 1}

        def double(self, inputs: Any) -> dict[str, Any]:
            return {"y": np.maximum(inputs["x"], 0).astype(np.float64)}

    with pytest.raises(ModelError, match="refused"):
        verify_import(replace(model, reference=Both()))


def test_errors_are_scaled_to_the_data() -> None:
    tiny = np.array([1e-7, 2e-7], np.float32)
    assert scaled_error(tiny, tiny * np.float32(1.5)) == pytest.approx(0.5, rel=1e-3)
    assert scaled_error(np.array([1.0, np.nan]), np.array([1.0, np.nan])) == 0
    assert scaled_error(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == np.inf
    assert scaled_error(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25
    assert scaled_error(np.zeros(3), np.zeros((3, 1))) == np.inf


def test_text_direction_classifier_with_its_real_weights(tmp_path: Path) -> None:
    models = pytest.importorskip("benchmarks.models")
    try:
        path, shapes = models.model("cls", tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    model = import_model(path, shapes)
    assert not any(name in operators(model) for name in ("relax.isnan", "relax.where"))
    assert operators(model)["relax.nn.conv2d"] == 53
    assert model.outputs[0].shape == (1, 2)
    assert verify_import(model).error < 1e-4
    assert import_model(path, shapes).digest == model.digest
