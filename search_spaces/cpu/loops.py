"""Steps that every schedule takes with loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def fused(schedule: Any, loops: Sequence[Any]) -> Any:
    """One loop out of ``loops``, which follow each other; a single one stays as it is."""
    return schedule.fuse(*loops) if len(loops) > 1 else loops[0]


def in_registers(schedule: Any, loops: Sequence[Any]) -> None:
    """Unroll ``loops`` and make vectors of the last one: what they write stays in registers."""
    *unrolled, lane = loops
    schedule.vectorize(lane)
    for loop in unrolled:
        schedule.unroll(loop)


def reduced_in_registers(
    schedule: Any, block: Any, outer: Sequence[Any], unrolled: Sequence[Any], tile: Sequence[Any]
) -> None:
    """Make the reduction ``block`` one of a register tile, which is filled before its first step.

    ``outer`` are its reduced loops but for those inside of them that are ``unrolled``; ``tile`` are
    its spatial ones, the last of them a vector.
    """
    schedule.reorder(*outer, *unrolled, *tile)
    in_registers(schedule, [*unrolled, *tile])
    init = schedule.decompose_reduction(block, outer[0])
    in_registers(schedule, schedule.get_loops(init)[-len(tile) :])


def cut_tails(schedule: Any, *loops: Any) -> None:
    """Cut what is left over at the ends of ``loops`` off, so that full turns have no condition."""
    for loop in loops:
        schedule.annotate(loop, "pragma_loop_partition_hint", 1)


def index_map(schedule: Any, function: Callable[..., Any], dims: int) -> Any:
    """A TVM index map of ``dims`` indices from a Python function of them."""
    from tvm import tirx

    first = schedule.mod["main"].params[0].shape
    dtype = str(first[0].ty.dtype) if len(first) else "int32"
    return tirx.IndexMap.from_func(function, ndim=dims, index_dtype=dtype)
