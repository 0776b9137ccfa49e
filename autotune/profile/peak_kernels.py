"""The kernels whose speed is the peak of a machine: operations in registers, nothing else."""

# mypy: disable-error-code="index, untyped-decorator"
# What TVMScript calls a buffer, and its decorators, have no types that mypy knows.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search_spaces.cpu.dot import IMPORT, Dot
from search_spaces.cpu.tile import COLUMNS, ROWS, STEPS, Tiles, depth_of
from search_spaces.task import Target, TensorType, Workload

if TYPE_CHECKING:
    from autotune.measure.kernel import Kernel


def multiply_adds(target: Target, dtype: str, shape: tuple[int, ...], steps: int) -> Kernel:
    """A kernel that does ``steps`` multiply-adds on each element of ``shape``.

    By what they multiply with, and what they add, is told while it runs: two rows of lanes.
    """
    import tvm
    from tvm.script import tirx as T

    threads, chains, lanes = shape
    shapes = (shape, (2, lanes), shape)
    # One object for two parameters would be one and the same buffer.
    first, lines, last = (T.Buffer(each, dtype) for each in shapes)

    # Not a sum of products: those do not change from step to step, and would be computed once.
    @T.prim_func(s_tir=True)
    def main(begin: first, term: lines, result: last) -> None:  # type: ignore[valid-type]
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            for thread in T.parallel(threads):
                with T.sblock("thread"):
                    at = T.axis.spatial(threads, thread)
                    T.reads(begin[at, 0:chains, 0:lanes], term[0:2, 0:lanes])
                    T.writes(result[at, 0:chains, 0:lanes])
                    kept = T.sblock_alloc_buffer((chains, lanes), dtype, scope="local")
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            kept[c, v] = begin[at, c, v]
                    for _ in range(steps):
                        for c in T.unroll(chains):
                            for v in T.vectorized(lanes):
                                kept[c, v] = kept[c, v] * term[0, v] + term[1, v]
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            result[at, c, v] = kept[c, v]

    return _kernel(tvm.IRModule({"main": main}), [(each, dtype) for each in shapes], target)


def dots(target: Target, dot: Dot, shape: tuple[int, ...], steps: int) -> Kernel:
    """A kernel that adds ``steps`` dot products to each element of ``shape``."""
    import tvm
    from tvm.script import tirx as T

    threads, chains, lanes = shape
    wide, (first, second, sums) = lanes * dot.depth, dot.types
    left, right = (threads, chains, wide), (wide,)
    a_type, b_type, r_type = T.Buffer(left, first), T.Buffer(right, second), T.Buffer(shape, sums)
    vector, whole = f"{sums}x{lanes}", T.Ramp(0, 1, wide)
    line, called = T.Ramp(0, 1, lanes), dot.called(lanes)

    @T.prim_func(s_tir=True)
    def main(a: a_type, b: b_type, result: r_type) -> None:  # type: ignore[valid-type]
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            for thread in T.parallel(threads):
                with T.sblock("thread"):
                    at = T.axis.spatial(threads, thread)
                    T.reads(a[at, 0:chains, 0:wide], b[0:wide])
                    T.writes(result[at, 0:chains, 0:lanes])
                    kept = T.sblock_alloc_buffer((chains, lanes), sums, scope="local")
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            kept[c, v] = T.Cast(sums, 0)
                    for _ in range(steps):
                        for c in T.unroll(chains):
                            kept[c, line] = T.call_extern(
                                vector, called, kept[c, line], a[at, c, whole], b[whole]
                            )
                    for c in T.unroll(chains):
                        for v in T.vectorized(lanes):
                            result[at, c, v] = kept[c, v]

    types = ((left, first), (right, second), (shape, sums))
    return _kernel(tvm.IRModule({"main": main}), types, target, dot.function(lanes))


def tile_sums(target: Target, tiles: Tiles, steps: int) -> Kernel:
    """A kernel that adds the product of the same ``tiles`` to the same sums ``steps`` times."""
    import tvm
    from tvm.script import tirx as T

    threads, dot = target.threads, tiles.dot
    first, second, sums = dot.types
    width = tiles.across * COLUMNS
    left = (threads, tiles.rows, depth_of(dot))
    right, result = (threads, ROWS, width, dot.depth), (threads, tiles.rows, width)
    a_type, b_type, r_type = T.Buffer(left, first), T.Buffer(right, second), T.Buffer(result, sums)
    begin, zero, add, store = (f"{tiles.name}_{step}" for step in STEPS)

    @T.prim_func(s_tir=True)
    def main(a: a_type, b: b_type, c: r_type) -> None:  # type: ignore[valid-type]
        T.func_attr({"tirx.noalias": True})
        with T.sblock("root"):
            for thread in T.parallel(threads):
                with T.sblock("thread"):
                    at = T.axis.spatial(threads, thread)
                    T.reads(a[at, 0 : left[1], 0 : left[2]], b[at, 0:ROWS, 0:width, 0 : right[3]])
                    T.writes(c[at, 0 : left[1], 0:width])
                    T.evaluate(T.call_extern("int32", begin))
                    T.evaluate(T.call_extern("int32", zero))
                    for _ in range(steps):
                        T.evaluate(
                            T.call_extern(
                                "int32",
                                add,
                                T.address_of(a[at, 0, 0]),
                                T.int64(64),
                                T.address_of(b[at, 0, 0, 0]),
                                T.int64(4 * width),
                            )
                        )
                    T.evaluate(
                        T.call_extern("int32", store, T.address_of(c[at, 0, 0]), T.int64(4 * width))
                    )

    types = ((left, first), (right, second), (result, sums))
    return _kernel(tvm.IRModule({"main": main}), types, target, tiles.functions)


def _kernel(
    module: Any, types: Sequence[tuple[tuple[int, ...], str]], target: Target, calls: str = ""
) -> Kernel:
    """A kernel that takes tensors of ``types`` and writes the last; ``calls`` is what it imports of
    functions in LLVM's language."""
    from tvm import s_tir

    from autotune.measure.kernel import build_kernel

    if calls:
        schedule = s_tir.Schedule(module, debug_mask=0)
        (loop,) = schedule.get_loops(schedule.get_sblock("thread"))
        schedule.annotate(loop, IMPORT, calls)
        module = schedule.mod
    arguments = tuple(TensorType(shape, dtype) for shape, dtype in types)
    return build_kernel(module, Workload("", "", "", arguments), target)
