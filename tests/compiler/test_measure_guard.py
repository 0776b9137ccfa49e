"""Guard zones around tensors: every dtype, every side, and zero-copy."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.dtypes import numpy_dtype
from autotune.measure.guard import ZONE, Guarded
from search_spaces.task import TensorType

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4)])
def test_both_views_are_the_same_memory_and_aligned(dtype: str, shape: tuple[int, ...]) -> None:
    guarded = Guarded(TensorType(shape, dtype))
    assert guarded.array.ctypes.data % 64 == 0 or guarded.array.size == 0
    guarded.array[...] = 1
    seen = guarded.tensor.numpy()
    assert seen.shape == shape and seen.dtype == numpy_dtype(dtype)
    assert np.array_equal(seen.astype(np.float32), np.ones(shape, np.float32))
    assert guarded.intact


@pytest.mark.parametrize("place", [-1, -ZONE, 60, 60 + ZONE - 1])
def test_one_byte_outside_is_seen(place: int) -> None:
    guarded = Guarded(TensorType((3, 5), "float32"))
    begin = guarded.array.ctypes.data - guarded._buffer.ctypes.data
    guarded._buffer[begin + place] ^= 1
    assert not guarded.intact


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_what_is_read_outside_is_no_number(dtype: str) -> None:
    guarded = Guarded(TensorType((4,), dtype))
    for zone in (guarded._before, guarded._behind):
        values = zone.view(numpy_dtype(dtype))
        assert (values != values).all()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
def test_the_checksum_sees_any_change_of_one_byte(count: int) -> None:
    guarded = Guarded(TensorType((count,), "int8"))
    before = guarded.checksum()
    for place in range(count):
        guarded.array[place] ^= 64
        assert guarded.checksum() != before
        guarded.array[place] ^= 64
    assert guarded.checksum() == before
