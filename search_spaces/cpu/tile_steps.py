# mypy: disable-error-code="valid-type,index,attr-defined,untyped-decorator"
"""What the steps of a sum on tiles mean, for TVM to find them in a schedule, and what they call.

Where there is one tile across it has no loop: TVM drops loops of one turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from search_spaces.cpu.tile import COLUMNS, ROWS, Tiles, depth_of


def register_tiles(trace: str) -> None:
    """Register the steps that ``trace`` names: who replays it may never have made one."""
    for name, stride in set(re.findall(r'"autotune\.(tiles_\w+)_add_(\d+)"', trace)):
        register(replace(Tiles.named(f"autotune_{name}"), stride=int(stride)))


@cache
def register(tiles: Tiles) -> None:
    """Register the steps with TVM, once."""
    from tvm.s_tir import TensorIntrin

    steps = (_zero(tiles), _add(tiles), _store(tiles))
    for name, (meaning, code) in zip(tiles.intrinsics, steps, strict=True):
        TensorIntrin.register(name, meaning, code, override=True)


def _turns(tiles: Tiles) -> tuple[tuple[int, ...], str, Callable[[Sequence[Any]], Any]]:
    """Extents and kinds of the loops over the sums, and the index of a sum from their variables."""
    several = tiles.across > 1
    turns = (tiles.rows, *[tiles.across] * several, COLUMNS)
    return turns, "S" * len(turns), lambda at: (at[0], at[1] if several else 0, at[-1])


def _zero(tiles: Tiles) -> tuple[Any, Any]:
    """C[r, v, l] = 0."""
    from tvm.script import tirx as T

    rows, across, sums = tiles.rows, tiles.across, tiles.dot.types[2]
    turns, kinds, place = _turns(tiles)
    c_type = T.Buffer((rows, across, COLUMNS), sums, offset_factor=1, scope="local")
    called, nothing = f"{tiles.name}_zero", T.Cast(sums, 0)

    @T.prim_func(s_tir=True)
    def meaning(C: c_type) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:rows, 0:across, 0:COLUMNS])
            for loops in T.grid(*turns):
                with T.sblock("zero"):
                    at = T.meta_var(place(T.axis.remap(kinds, loops)))
                    C[at] = nothing

    @T.prim_func(s_tir=True)
    def code(C: c_type) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:rows, 0:across, 0:COLUMNS])
            T.evaluate(T.call_extern("int32", called))

    return meaning, code


def _add(tiles: Tiles) -> tuple[Any, Any]:
    """C[r, v, l] += A[r * stride, k] * B[k // d, v * 16 + l, k % d], in the type of C."""
    from tvm.script import tirx as T

    dot = tiles.dot
    rows, across, stride, depth = tiles.rows, tiles.across, tiles.stride, depth_of(dot)
    span, width, each, wide = (rows - 1) * stride + 1, across * COLUMNS, dot.depth, dot.widen
    one, other, sums = dot.types
    turns, kinds, place = _turns(tiles)
    size = 4 // each
    called = f"{tiles.name}_add"

    @T.prim_func(s_tir=True)
    def meaning(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (span, depth), one, offset_factor=1)
        B = T.match_buffer(b, (ROWS, width, each), other, offset_factor=1)
        C = T.match_buffer(c, (rows, across, COLUMNS), sums, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:rows, 0:across, 0:COLUMNS], A[0:span, 0:depth], B[0:ROWS, 0:width, 0:each])
            T.writes(C[0:rows, 0:across, 0:COLUMNS])
            for loops in T.grid(*turns, depth):
                with T.sblock("update"):
                    axes = T.meta_var(T.axis.remap(kinds + "R", loops))
                    at, k = T.meta_var(place(axes[:-1])), T.meta_var(axes[-1])
                    C[at] = C[at] + wide(A[at[0] * stride, k]) * wide(
                        B[k // each, at[1] * COLUMNS + at[2], k % each]
                    )

    @T.prim_func(s_tir=True)
    def code(a: T.handle, b: T.handle, c: T.handle) -> None:
        pitch, over, next_one = T.int32(), T.int32(), T.int32()
        A = T.match_buffer(a, (span, depth), one, offset_factor=1, strides=[pitch, 1])
        B = T.match_buffer(
            b, (ROWS, width, each), other, offset_factor=1, strides=[over, next_one, 1]
        )
        C = T.match_buffer(c, (rows, across, COLUMNS), sums, offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:rows, 0:across, 0:COLUMNS], A[0:span, 0:depth], B[0:ROWS, 0:width, 0:each])
            T.writes(C[0:rows, 0:across, 0:COLUMNS])
            T.evaluate(
                T.call_extern(
                    "int32",
                    called,
                    T.address_of(A[0, 0]),
                    T.Cast("int64", pitch) * T.int64(size * stride),
                    T.address_of(B[0, 0, 0]),
                    T.Cast("int64", over) * T.int64(size),
                )
            )

    return meaning, code


def _store(tiles: Tiles) -> tuple[Any, Any]:
    """D[r, v, l] = C[r, v, l]: from the tiles to memory."""
    from tvm.script import tirx as T

    rows, across, sums = tiles.rows, tiles.across, tiles.dot.types[2]
    turns, kinds, place = _turns(tiles)
    called = f"{tiles.name}_store"

    @T.prim_func(s_tir=True)
    def meaning(c: T.handle, d: T.handle) -> None:
        C = T.match_buffer(c, (rows, across, COLUMNS), sums, offset_factor=1, scope="local")
        D = T.match_buffer(d, (rows, across, COLUMNS), sums, offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:rows, 0:across, 0:COLUMNS])
            T.writes(D[0:rows, 0:across, 0:COLUMNS])
            for loops in T.grid(*turns):
                with T.sblock("store"):
                    at = T.meta_var(place(T.axis.remap(kinds, loops)))
                    D[at] = C[at]

    @T.prim_func(s_tir=True)
    def code(c: T.handle, d: T.handle) -> None:
        pitch, over = T.int32(), T.int32()
        C = T.match_buffer(c, (rows, across, COLUMNS), sums, offset_factor=1, scope="local")
        D = T.match_buffer(
            d, (rows, across, COLUMNS), sums, offset_factor=1, strides=[pitch, over, 1]
        )
        with T.sblock("root"):
            T.reads(C[0:rows, 0:across, 0:COLUMNS])
            T.writes(D[0:rows, 0:across, 0:COLUMNS])
            T.evaluate(
                T.call_extern(
                    "int32",
                    called,
                    T.address_of(D[0, 0, 0]),
                    T.Cast("int64", pitch) * T.int64(4),
                )
            )

    return meaning, code
