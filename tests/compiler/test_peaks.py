"""Peaks by dtype: of instructions where there are any, else of what is computed instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.errors import TargetError
from autotune.profile import peaks
from autotune.target import native
from search_spaces.analysis import arithmetic

SHORT = {feature for dot in peaks.DOTS.values() for feature in dot.features}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 20_000), ("TURNS", 1), ("REPEAT", 10)):
        monkeypatch.setattr(peaks, name, value)


def test_each_dtype_has_a_peak_here() -> None:
    target = native(1)
    found = peaks.measure_peaks(target)
    assert found["float32"] > 1e9
    assert found["float64"] < found["float32"]
    assert {"float32", "float64", "float16", "int32", "bfloat16", "int8"} == {*found}
    for dtype, dot in peaks.DOTS.items():
        if dtype in found and dot.lanes(target):
            assert found[dtype] > 1.2 * found[peaks.AS_LONGER[dtype]]


def test_without_instructions_short_numbers_are_computed_as_longer_ones() -> None:
    target = native(1)
    plain = tuple(f for f in target.features if f not in SHORT and not f.startswith("+amx"))
    found = peaks.measure_peaks(replace(target, features=plain))
    assert found["bfloat16"] == found["float32"] and found["int8"] == found["int32"]


def test_tiles_count_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "chains", lambda target, dtype: 1e9)
    monkeypatch.setattr(peaks, "dot_products", lambda target, dot: 4e9)
    monkeypatch.setattr(peaks, "tile_products", lambda target, dot: 32e9)
    features = ("+amx-tile", "+amx-bf16", "+avx512bf16", "+avx512vnni")
    target = replace(native(1), triple="x86_64-linux-gnu", features=features)
    found = peaks.measure_peaks(target)
    assert found["bfloat16"] == 32e9 and found["int8"] == 4e9


def test_a_peak_that_cannot_be_measured_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def chains(target: Any, dtype: str) -> float:
        if dtype == failing:
            raise TargetError("no")
        return 1e9

    monkeypatch.setattr(peaks, "chains", chains)
    target = replace(native(1), features=())
    failing = "float64"
    assert "float64" not in peaks.measure_peaks(target)
    failing = "float32"
    with pytest.raises(TargetError):
        peaks.measure_peaks(target)


@pytest.mark.parametrize(
    ("left", "right", "computed", "expected"),
    [
        ("float32", "float32", "float32", "float32"),
        ("int8", "uint8", "int32", "int8"),
        ("bfloat16", "bfloat16", "float32", "bfloat16"),
        ("int8", "float32", "float32", "float32"),  # only weights are short: computed in floats
        ("float16", "float16", "float16", "float16"),
    ],
)
def test_the_arithmetic_of_a_kernel(left: str, right: str, computed: str, expected: str) -> None:
    from tvm import te

    a, b = te.placeholder((8, 8), left), te.placeholder((8, 8), right)
    k = te.reduce_axis((0, 8))

    def product(i: Any, j: Any) -> Any:
        return te.sum(a[i, k].astype(computed) * b[k, j].astype(computed), axis=k)

    assert arithmetic(te.create_prim_func([a, b, te.compute((8, 8), product)])) == expected


def test_the_arithmetic_of_what_multiplies_nothing_is_that_of_its_result() -> None:
    from tvm import te

    a = te.placeholder((8, 8), "int64")
    made = te.compute((64,), lambda i: a[i // 8, i % 8].astype("float64"))
    assert arithmetic(te.create_prim_func([a, made])) == "float64"
