"""The two forms of an image, channels first and last, and what turns one into the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from search_spaces.graph.expressions import shape_of

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)
PLACES = {4: TO_FIRST, 3: (0, 3, 2)}
"""Where the axes of a tensor of so many are in its channels-last form."""


def window(
    strides: Sequence[Any], dilation: Sequence[Any], padding: Sequence[Any]
) -> tuple[list[int], list[int], list[int]]:
    """What says how a window moves over an image; one along one axis has a single row."""
    s, d, p = ([int(value) for value in values] for values in (strides, dilation, padding))
    if len(s) == 1:
        return [1, *s], [1, *d], [0, p[0], 0, p[1]]
    return s, d, p


def image_shape(shape: list[int]) -> list[int]:
    """A shape of three axes as that of an image of one row."""
    return shape if len(shape) == 4 else [*shape[:2], 1, shape[2]]


def rows_dropped(image: Any) -> Any:
    """[N, 1, L, C] as [N, L, C]."""
    batch, _, length, channels = shape_of(image) or []
    return relax.op.reshape(image, [batch, length, channels])


def moved(value: Any, axes: tuple[int, ...]) -> Any:
    """A permutation; a reshape, which copies nothing, where only axes of extent one move.

    ``value`` itself where no axis moves.
    """
    if list(axes) == sorted(axes):
        return value
    shape = shape_of(value)
    if shape is not None:
        new = [shape[axis] for axis in axes]
        if [extent for extent in shape if extent != 1] == [extent for extent in new if extent != 1]:
            kept = [axis for axis in range(4) if shape[axis] != 1]
            if [axis for axis in axes if axis in kept] == kept:
                return relax.op.reshape(value, new)
    return relax.op.permute_dims(value, list(axes))
