"""Budgets, samples and evaluation functions: what is understood, and what is a sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.errors import InputError
from autotune.frontends.base import TensorSpec
from autotune.precision.asked import asked
from autotune.precision.budget import Budget
from autotune.precision.evaluation import evaluation
from autotune.precision.plan import Way, worthwhile
from autotune.precision.samples import read_samples
from autotune.precision.told import told


def outputs(**arrays: Any) -> list[dict[str, Any]]:
    return [{name: np.asarray(array, np.float32) for name, array in arrays.items()}]


def test_a_number_is_the_relative_error_of_the_worst_output() -> None:
    budget = Budget.parse("0.01")
    assert budget == Budget("relative", 0.01) and str(budget) == "0.01"
    right = outputs(a=[3.0, 4.0], b=[1.0, 0.0])
    found = outputs(a=[3.0, 4.5], b=[1.0, 0.3])
    assert budget.error(right, found) == pytest.approx(0.3)
    # Samples count together: what is off in one of them is a part of all.
    assert budget.error(right + right, found + right) == pytest.approx(0.3 / math.sqrt(2))


def test_other_forms_are_of_elements_and_of_directions() -> None:
    right, found = outputs(a=[3.0, 4.0]), outputs(a=[6.0, 8.5])
    assert Budget.parse("abs:2").error(right, found) == pytest.approx(4.5)
    cosine = Budget.parse("cosine:0.999")
    assert cosine.limit == pytest.approx(0.001) and str(cosine) == "cosine:0.999"
    assert cosine.error(right, outputs(a=[6.0, 8.0])) == pytest.approx(0, abs=1e-6)
    assert cosine.error(right, outputs(a=[-3.0, -4.0])) == pytest.approx(2)


def test_what_is_no_number_any_more_is_infinitely_wrong() -> None:
    budget = Budget.parse("0.5")
    assert budget.error(outputs(a=[1.0]), outputs(a=[math.nan])) == math.inf
    assert budget.error(outputs(a=[0.0]), outputs(a=[1.0])) == math.inf
    assert budget.error(outputs(a=[math.nan, 1.0]), outputs(a=[math.nan, 1.0])) == 0.0


@pytest.mark.parametrize("text", ["", "some", "-1", "nan", "rel:0.1", "abs:", "cosine:1.5"])
def test_what_is_no_budget_is_a_sentence(text: str) -> None:
    with pytest.raises(InputError):
        Budget.parse(text)


def test_with_a_function_the_budget_is_of_its_value() -> None:
    assert Budget.parse("0.5", metric=True) == Budget("metric", 0.5)
    with pytest.raises(InputError, match="evaluation function"):
        Budget.parse("cosine:0.9", metric=True)


def test_nothing_is_asked_for_without_a_budget(tmp_path: Path) -> None:
    assert asked(None, None, None, ()) is None
    with pytest.raises(InputError, match="--calibration .* state --accuracy-budget"):
        asked(None, None, tmp_path / "x.npz", ())
    with pytest.raises(InputError, match="is no file"):
        asked("0.1", None, tmp_path / "x.npz", ())


SPECS = (TensorSpec("x", (2, 3), "float32"), TensorSpec("n", (2,), "int64"))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [(5, 2, 3), (10, 3)])
def test_samples_are_along_the_first_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(30, dtype=np.float32).reshape(shape)
    path = saved(tmp_path / "s.npz", x=values, n=np.zeros((5, 2), np.int64))
    found = read_samples(path, SPECS)
    assert len(found) == 5 and all(one["x"].shape == (2, 3) for one in found)
    assert np.array_equal(np.concatenate([one["x"].reshape(-1) for one in found]), np.arange(30))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"x": np.zeros((1, 2, 3), "f4")}, "has no array n"),
    "dtype": ({"x": np.zeros((1, 2, 3)), "n": np.zeros((1, 2), "i8")}, "dtype float64"),
    "shape": ({"x": np.zeros((1, 2, 4), "f4"), "n": np.zeros((1, 2), "i8")}, "N samples .* Nx2x3"),
    "counts": ({"x": np.zeros((3, 2, 3), "f4"), "n": np.zeros((1, 2), "i8")}, "as many samples"),
    "none": ({"x": np.zeros((0, 2, 3), "f4"), "n": np.zeros((0, 2), "i8")}, "no samples"),
    "nan": ({"x": np.full((1, 2, 3), np.nan, "f4"), "n": np.zeros((1, 2), "i8")}, "NaN"),
    "pickle": ({"x": np.asarray([{}], object), "n": np.zeros((1, 2), "i8")}, "plain arrays"),
}


@pytest.mark.parametrize("name", BAD)
def test_samples_that_do_not_fit_are_a_sentence(name: str, tmp_path: Path) -> None:
    arrays, said = BAD[name]
    with pytest.raises(InputError, match=said):
        read_samples(saved(tmp_path / "s.npz", **arrays), SPECS)


def test_a_file_that_holds_no_samples_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("s.npz", "one.npy"):
        with pytest.raises(InputError, match=r"no \.npz file"):
            read_samples(tmp_path / name, SPECS)


def test_an_evaluation_function_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_metric.py").write_text("def score(run):\n    return run(2) + 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert evaluation("my_metric:score")(lambda x: x) == 2.5  # type: ignore[arg-type, return-value]
    for name, said in {
        "my_metric": "module:function",
        "my_metric:other": "has no function other",
        "no_such_metric:score": "cannot be imported",
    }.items():
        with pytest.raises(InputError, match=said):
            evaluation(name)


@pytest.mark.parametrize("returned", [math.nan, None, "good"])
def test_a_function_that_returns_no_number_is_a_sentence(returned: Any) -> None:
    with pytest.raises(InputError, match="has to be a number"):
        evaluation(lambda run: returned)(lambda inputs: inputs)


def test_a_function_that_raises_is_a_sentence() -> None:
    def fails(run: Any) -> float:
        raise KeyError("label")

    with pytest.raises(InputError, match="fails failed: KeyError: 'label'"):
        evaluation(fails)(lambda inputs: inputs)


def test_what_was_chosen_is_told_in_a_line() -> None:
    assert told(None) == told({"graph.precision": {"parameters": {"a": "float32"}}}) == ""
    found = {
        "parameters": {"a": "int8 -1.0 2.0", "b": "bfloat16", "c": "float32", "d": "bfloat16"},
        "accuracy": {
            "kind": "relative", "budget": "0.01", "error": 0.0034, "samples": 4,
            "given": True, "held_back": True,
        },
    }  # fmt: skip
    line = told({"graph.precision": found})
    assert line.startswith("of 4 sums of products ")
    for part in ("1 in int8", "2 in bfloat16", "1 in float32", "0.0034", "0.01", "held back"):
        assert part in line


@pytest.mark.parametrize(
    ("ways", "kept"),
    [
        # The dearest one gains the most for its cost: what is between is no step of its own.
        ([(0, 9), (1, 8), (2, 0)], "ac"),
        ([(0, 9), (1, 1), (2, 0)], "abc"),
        # One that loses more than a cheaper one is never worth it.
        ([(0, 5), (1, 7), (4, 0)], "ac"),
        # By their cost, in whatever order they are told.
        ([(0, 9), (3, 0), (1, 2)], "acb"),
        ([(0, 0), (2, 0)], "ab"),
    ],
)
def test_steps_gain_ever_less_for_their_cost(ways: list[tuple[float, float]], kept: str) -> None:
    named = [Way(name, *way) for name, way in zip("abc", ways, strict=False)]
    assert "".join(way.value for way in worthwhile(named)) == kept
