"""Tensors between guard zones: a kernel that writes past the end of one is caught, not believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from autotune.dtypes import numpy_dtype
from autotune.measure.data import Array, poison
from search_spaces.task import TensorType

ZONE = 1 << 14
"""Bytes before and behind each tensor."""

_ALIGNMENT = 64  # what TVM's code may assume of its arguments
# As a float of any width this is a NaN, so that reading past the end is seen in the result.
_PATTERN = np.tile(np.array([0xF5, 0xFF], np.uint8), ZONE // 2)


class Buffer(Protocol):
    """A tensor that is watched, in this process or on a device.

    ``tensor`` is TVM's, ``array`` is what is in it, as numpy sees it.
    """

    tensor: Any

    @property
    def array(self) -> Array:
        """The contents."""

    def fill(self, array: Array) -> None:
        """Write ``array``, which is of the same shape and dtype."""

    def poison(self) -> None:
        """Fill with what no kernel computes, so that an element that is not written is seen."""

    def bits(self) -> bytes:
        """A copy of the contents, to be compared bit by bit."""

    def checksum(self) -> int:
        """A number that changes when any one byte does."""

    @property
    def intact(self) -> bool:
        """Whether nothing around the tensor was written."""


Allocate = Callable[[TensorType], Buffer]


def checksum_of(contents: Array) -> int:
    """A number that changes when any one of these bytes (uint8) does; as fast as reading."""
    words = contents[: contents.size // 8 * 8].view(np.uint64)
    rest = contents[words.size * 8 :].astype(np.uint64)
    return int(np.add.reduce(words)) * 4096 + int(rest @ (1 << np.arange(rest.size)))


class Guarded:
    """One tensor in a buffer of its own. ``tensor`` is TVM's and ``array`` numpy's view of it."""

    def __init__(self, kind: TensorType) -> None:
        """Allocate. The contents are those of ``poison``."""
        import tvm

        self.kind = kind
        self._buffer = np.empty(kind.bytes + 2 * ZONE + _ALIGNMENT, np.uint8)
        begin = ZONE + -(self._buffer.ctypes.data + ZONE) % _ALIGNMENT
        end = begin + kind.bytes
        self._before = self._buffer[begin - ZONE : begin]
        self._behind = self._buffer[end : end + ZONE]
        self._before[:] = self._behind[:] = _PATTERN
        self._bytes = self._buffer[begin:end]
        self.array: Array = self._bytes.view(numpy_dtype(kind.dtype)).reshape(kind.shape)
        # DLPack has no bfloat16 of numpy's, but any bytes can be seen as what they are.
        # A slice without bytes is nowhere, and so aligned to nothing: it gets one.
        flat = tvm.runtime.from_dlpack(self._buffer[begin : max(end, begin + 1)])
        self.tensor: Any = flat._create_view(kind.shape, kind.dtype)
        self.poison()

    @classmethod
    def of(cls, array: Array, kind: TensorType) -> Guarded:
        """A copy of ``array``, which is of ``kind``."""
        made = cls(kind)
        made.fill(array)
        return made

    def fill(self, array: Array) -> None:
        """Write ``array``, which is of the same shape and dtype."""
        self.array[...] = array

    def poison(self) -> None:
        """Fill with what no kernel computes, so that an element that is not written is seen."""
        self.array[...] = poison(self.kind)

    def bits(self) -> bytes:
        """A copy of the contents, to be compared bit by bit."""
        return self._bytes.tobytes()

    def checksum(self) -> int:
        """A number that changes when any one byte does; as fast as reading."""
        return checksum_of(self._bytes)

    @property
    def intact(self) -> bool:
        """Whether nothing around the tensor was written."""
        return bool(
            np.array_equal(self._before, _PATTERN) and np.array_equal(self._behind, _PATTERN)
        )
