"""What counts as a right result."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.dtypes import numpy_dtype
from autotune.measure.data import make_inputs, poison
from autotune.measure.verify import (
    compare,
    compare_outputs,
    reduction_length,
    tolerance_of,
)
from search_spaces.task import Access, Axis, Block, TensorType, Workload

F32 = TensorType((4, 8), "float32")


def workload(*types: TensorType, reduced: int = 0) -> Workload:
    axes = (Axis(4, False), Axis(reduced, True)) if reduced else (Axis(4, False),)
    return Workload(
        "k",
        "w",
        "",
        types,
        blocks=(Block("b", axes, (Access(0, ((0,),), True),), (Access(1, ((0,),), True),), ()),),
    )


def test_tolerance_grows_with_the_root_of_the_reduction() -> None:
    plain, long = workload(F32, F32), workload(F32, F32, reduced=400)
    assert reduction_length(plain) == 1
    assert reduction_length(long) == 400
    assert tolerance_of(long) == pytest.approx(20 * tolerance_of(plain))
    assert tolerance_of(plain) < 1e-5


def test_tolerance_is_that_of_the_coarsest_float_and_nothing_for_integers() -> None:
    bf16, i32 = TensorType((4,), "bfloat16"), TensorType((4,), "int32")
    assert tolerance_of(workload(F32, bf16)) > 1000 * tolerance_of(workload(F32, F32))
    assert tolerance_of(workload(i32, i32)) == 0.0


@given(st.integers(0, 31), st.floats(0.01, 100))
def test_one_wrong_element_anywhere_is_found(place: int, amount: float) -> None:
    expected = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    got = expected.copy()
    got.flat[place] += amount
    assert compare([expected], [expected], 1e-4).right
    found = compare([got], [expected], 1e-4)
    assert not found.right
    assert found.error == pytest.approx(amount, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_where_the_reference_has_none(bad: float) -> None:
    expected = np.ones((4, 8), np.float32)
    got = expected.copy()
    got[1, 2] = bad
    found = compare([got], [expected], 1.0)
    assert not found.right and found.error == math.inf
    assert compare([got], [got], 1e-4).right
    assert not compare([expected], [got], 1.0).right


def test_an_output_that_is_not_written_is_wrong() -> None:
    for dtype in ("float32", "float16", "bfloat16", "int32", "int8", "bool"):
        t = TensorType((4, 8), dtype)
        assert not compare([poison(t)], [np.zeros((4, 8), numpy_dtype(dtype))], 1e-3).right


def test_the_scale_is_that_of_the_data() -> None:
    expected = np.full((4, 8), 1e-6, np.float32)
    assert not compare([expected * 2], [expected], 1e-3).right
    assert compare([np.zeros((4, 8), np.float32)], [np.zeros((4, 8), np.float32)], 1e-3).right


def test_the_worst_output_is_reported() -> None:
    one, two = np.ones(4, np.float32), np.arange(4, dtype=np.int32)
    found = compare([one, two + 1], [one, two], 1e-4)
    assert found.message.startswith("output 1: 4 of 4")


def test_integers_must_be_equal() -> None:
    one = np.arange(4, dtype=np.int32)
    assert compare([one], [one], 0.5).right
    assert not compare([one + 1], [one], 5.0).right


def test_inputs_are_the_same_for_the_same_seed_and_safe_as_indices() -> None:
    i64, i8 = TensorType((64,), "int64"), TensorType((64,), "int8")
    made = workload(F32, i64, i8, TensorType((4,), "bool"), F32)
    first, again = make_inputs(made, "signed", 3), make_inputs(made, "signed", 3)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    assert first[0].min() < 0 <= first[1].min()
    assert set(first[1].tolist()) <= {0, 1}
    assert first[2].min() < -1 and first[2].dtype == np.int8
    assert first[3].dtype == np.bool_
    assert make_inputs(made, "positive", 3)[0].min() > 0
    assert not np.array_equal(make_inputs(made, "signed", 4)[0], first[0])


def test_few_rounded_numbers_may_be_the_next_ones() -> None:
    kind = TensorType((4096,), "uint8")
    plain = workload(F32, kind)
    rounding = replace(plain, blocks=(replace(plain.blocks[0], ops=(("tirx.round", 1),)),))
    right = np.arange(4096, dtype=np.uint8)
    few, many, far = right.copy(), right.copy(), right.copy()
    few[:4] ^= 1
    many[:40] ^= 1
    far[0] += 2
    assert compare_outputs(rounding, [few], [right], 0.0).right
    for wrong in (many, far):
        assert not compare_outputs(rounding, [wrong], [right], 0.0).right
    # Where nothing is rounded they have to be the same.
    assert not compare_outputs(plain, [few], [right], 0.0).right
