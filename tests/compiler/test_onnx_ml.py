"""Operators of ai.onnx.ml, as sklearn-onnx writes them, compute what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.errors import ModelError
from autotune.frontends import import_model, verify_import
from autotune.frontends.onnx_rewrites import REWRITES
from autotune.frontends.onnx_rewrites.base import ML
from autotune.frontends.verify import naive_build
from autotune.inspection import inspect

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS, FEATURES = 5, 4


def numbers(*shape: int) -> list[float]:
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return list(map(float, values.reshape(-1)))


def saved(
    folder: Path,
    operator: str,
    outputs: tuple[int, ...] = (FLOAT,),
    kind: int = FLOAT,
    version: int = 3,
    constants: dict[str, Any] | None = None,
    **attributes: Any,
) -> Path:
    """A file of one operator on a table ``x``; ``outputs`` are the types of its outputs."""
    constants = constants or {}
    names = [f"y{i}" for i in range(len(outputs))]
    made = helper.make_node(operator, ["x", *constants], names, domain=ML, **attributes)
    graph = helper.make_graph(
        [made],
        "made",
        [helper.make_tensor_value_info("x", kind, [ROWS, FEATURES])],
        [helper.make_tensor_value_info(n, k, None) for n, k in zip(names, outputs, strict=True)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, version)]
    path = folder / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def trees(mode: str, classes: bool = False, **more: Any) -> dict[str, Any]:
    """Two trees: one of three leaves on two levels, one of two."""
    prefix = "class" if classes else "target"
    return {
        **({} if classes else {"n_targets": 1}),
        "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
        "nodes_featureids": [0, 0, 2, 0, 0, 3, 0, 0],
        "nodes_modes": [mode, "LEAF", mode, "LEAF", "LEAF", mode, "LEAF", "LEAF"],
        "nodes_values": [0.5, 0, -0.5, 0, 0, 1.0, 0, 0],
        "nodes_truenodeids": [1, 0, 3, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0, 2, 0, 0],
        f"{prefix}_treeids": [0, 0, 0, 1, 1],
        f"{prefix}_nodeids": [1, 3, 4, 1, 2],
        f"{prefix}_ids": [0, 0, 0, 0, 0],
        f"{prefix}_weights": [0.25, -0.5, 0.75, 0.125, -0.3],
        **more,
    }


MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "scaler": ("Scaler", {"offset": numbers(4), "scale": numbers(4)}),
    "scaler of one": ("Scaler", {"offset": [0.5], "scale": [2.0], "kind": INT64}),
    **{f"normalizer {n}": ("Normalizer", {"norm": n}) for n in ("MAX", "L1", "L2")},
    "binarizer": ("Binarizer", {"threshold": 0.5}),
    "imputer": ("Imputer", {"imputed_value_floats": numbers(4),
                            "replaced_value_float": float("nan")}),
    "imputer of zeros": ("Imputer", {"imputed_value_int64s": [7], "replaced_value_int64": 0,
                                     "kind": INT64, "outputs": (INT64,)}),
    "columns": ("ArrayFeatureExtractor", {"constants": {"c": np.array([2, 0])}}),
    "one hot": ("OneHotEncoder", {"cats_int64s": [0, 1, 3], "zeros": 1, "kind": INT64}),
    "one hot of floats": ("OneHotEncoder", {"cats_int64s": [0, 1, -3], "zeros": 1}),
    "labels": ("LabelEncoder", {"keys_int64s": [0, 2, 1], "values_floats": [1.5, 2.5, 3.5],
                                "default_float": -1.0, "kind": INT64}),
    "many labels": ("LabelEncoder", {"keys_int64s": list(range(1, 30)), "default_int64": -7,
                                     "values_int64s": list(range(30, 59)), "kind": INT64,
                                     "outputs": (INT64,)}),
    "linear": ("LinearRegressor", {"coefficients": numbers(8), "intercepts": numbers(2),
                                   "targets": 2}),
    **{f"classes {how}": ("LinearClassifier", {
        "coefficients": numbers(12), "intercepts": numbers(3), "classlabels_ints": [4, 7, 9],
        "post_transform": how, "outputs": (INT64, FLOAT)})
       for how in ("NONE", "LOGISTIC", "SOFTMAX")},
    **{f"vectors {kernel}": ("SVMRegressor", {
        "coefficients": numbers(3), "support_vectors": numbers(12), "n_supports": 3,
        "rho": [0.3], "kernel_type": kernel, "kernel_params": [0.2, 0.5, 3.0]})
       for kernel in ("LINEAR", "RBF", "POLY", "SIGMOID")},
    "vectors of classes": ("SVMClassifier", {
        "coefficients": numbers(12), "support_vectors": numbers(24), "rho": numbers(3),
        "vectors_per_class": [1, 2, 3], "classlabels_ints": [0, 1, 2], "kernel_type": "RBF",
        "kernel_params": [0.2, 0.0, 3.0], "outputs": (INT64, FLOAT)}),
    **{f"trees {mode}": ("TreeEnsembleRegressor", trees(f"BRANCH_{mode}", base_values=[0.5]))
       for mode in MODES},
    "average": ("TreeEnsembleRegressor", trees("BRANCH_LEQ", aggregate_function="AVERAGE")),
    "tree of three": ("TreeEnsembleClassifier", trees(
        "BRANCH_LEQ", True, class_ids=[0, 1, 2, 1, 2], classlabels_int64s=[3, 5, 8],
        post_transform="SOFTMAX", outputs=(INT64, FLOAT))),
    **{f"tree of two {how}": ("TreeEnsembleClassifier", trees(
        "BRANCH_LEQ", True, classlabels_int64s=[0, 1], post_transform=how,
        outputs=(INT64, FLOAT))) for how in ("NONE", "LOGISTIC")},
    "chances": ("TreeEnsembleClassifier", trees(
        "BRANCH_LEQ", True, classlabels_int64s=[0, 1], outputs=(INT64, FLOAT),
        class_weights=[0.1, 0.5, 0.3, 0.4, 0.2])),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_they_compute_what_onnx_runtime_does(tmp_path: Path, name: str) -> None:
    operator, options = CASES[name]
    path = saved(tmp_path, operator, **options)
    model = import_model(path)
    assert "rewritten" in model.stage
    assert verify_import(model).error < 1e-5
    assert model.reference.engine == "onnxruntime"  # type: ignore[attr-defined]


def test_every_operator_that_is_rewritten_is_tried() -> None:
    ours = [rewrite for rewrite in REWRITES if rewrite.domain == ML]
    named = {operator for rewrite in ours for operator in rewrite.operators}
    assert named - {operator for operator, _ in CASES.values()} == {"FeatureVectorizer", "ZipMap"}


def test_what_is_no_number_takes_the_branch_that_the_tree_says(tmp_path: Path) -> None:
    for mode in MODES:
        options = trees(f"BRANCH_{mode}", nodes_missing_value_tracks_true=[1, 0, 0, 0, 0, 1, 0, 0])
        model = import_model(saved(tmp_path, "TreeEnsembleRegressor", **options))
        x = np.full((ROWS, FEATURES), np.nan, np.float32)
        x[1:] = np.random.default_rng(0).choice([np.nan, -1.0, 0.5, 1.0], (ROWS - 1, FEATURES))
        expected, actual = model.reference({"x": x}), naive_build(model)({"x": x})
        np.testing.assert_allclose(actual["y0"], expected["y0"], err_msg=mode)


@pytest.mark.parametrize(
    ("operator", "attributes", "words"),
    [
        ("OneHotEncoder", {"cats_strings": ["a", "b"]}, "look the words up before"),
        ("LabelEncoder", {"keys_floats": [1.0], "values_strings": ["a"]}, "of words"),
        ("LinearClassifier", {"coefficients": numbers(8), "intercepts": [0.0, 0.0],
                              "classlabels_strings": ["no", "yes"]}, "labels are words"),
        ("SVMClassifier", {"classlabels_ints": [0, 1], "prob_a": [1.0], "prob_b": [1.0],
                           "vectors_per_class": [1, 1], "coefficients": [1.0, 1.0],
                           "support_vectors": numbers(8), "rho": [0.0]}, "iterates"),
        ("ZipMap", {"classlabels_int64s": [0, 1, 2, 3]}, "zipmap=False"),
    ],
)  # fmt: skip
def test_what_has_no_numbers_is_refused_with_a_sentence(
    tmp_path: Path, operator: str, attributes: dict[str, Any], words: str
) -> None:
    outputs = (INT64, FLOAT) if "Classifier" in operator else (FLOAT,)
    path = saved(tmp_path, operator, outputs=outputs, **attributes)
    with pytest.raises(ModelError, match=words):
        import_model(path)


def test_inspect_names_the_stage(tmp_path: Path) -> None:
    found = inspect(saved(tmp_path, "Scaler", offset=[1.0], scale=[2.0]))
    assert [(entry.name, entry.domain, entry.stage) for entry in found.operators] == [
        ("Scaler", ML, "rewritten")
    ]
    assert found.unsupported == ()


def test_a_model_that_names_no_opset_of_onnx_itself(tmp_path: Path) -> None:
    path = saved(tmp_path, "Scaler", offset=[1.0], scale=[2.0])
    proto = onnx.load(path)
    del proto.opset_import[0]
    onnx.save(proto, path)
    assert verify_import(import_model(path)).error < 1e-6
