"""What a task should compute: its function unscheduled, in float64, on the safe path.

The compiler under test must not be its own judge where it is known to err: vectorised code for wide
registers has been seen to be wrong, so nothing is vectorised and LLVM optimises little.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from autotune.compiler import compile_functions
from autotune.dtypes import is_float, numpy_dtype
from autotune.measure.data import (
    Array,
    Variant,
    make_inputs,
    outputs_of,
    poison,
)
from autotune.measure.precision import Precision, has_steps, in_float64
from autotune.measure.verify import compare_outputs, tolerance_of
from search_spaces.task import Target, Task

EXTRA_SECONDS = 2.0
"""No further draw is begun after this long: a slow function gets fewer of them.

Of this thread at work, so that a task is not checked on less because the machine was busy."""


SMALL = 8e6
"""Operations, or floats touched, below which a function is sooner computed than optimised."""


@dataclass(frozen=True)
class Draw:
    """Which inputs: what ``make_inputs`` takes."""

    variant: Variant
    seed: int


@dataclass(frozen=True)
class Reference:
    """The outputs of a task for each draw of inputs, the first of which every candidate meets.

    Those after it are for candidates that could win: fresh numbers, then extremes.
    """

    precision: Precision
    outputs: Mapping[Draw, list[Array]] = field(repr=False)


def compute_reference(task: Task, target: Target, seed: int) -> tuple[Variant, list[Array]]:
    """Run the unscheduled function; returns which inputs were used and the outputs on them.

    Inputs are of both signs, unless that gives NaN or infinities (a logarithm, a variance that is
    read as an argument): then positive ones, if they give fewer. Raises TVM's errors.
    """
    draw, outputs, _ = _first(_Programs(task, target), seed)
    return draw.variant, outputs


def compute_references(task: Task, target: Target, seed: int) -> Reference:
    """As ``compute_reference``, for every draw that is fit to compare with.

    Extremes are left out where two right programs may differ on them: where float32 overflows, or
    is off by a good part of the tolerance. Raises TVM's errors.
    """
    started = time.thread_time()
    programs = _Programs(task, target)
    first, outputs, precision = _first(programs, seed)
    found = {first: outputs}
    wide: Variant = "wide" if first.variant == "signed" else "wide positive"
    fresh = Draw(first.variant, seed + 1)
    for draw in (fresh, Draw("zeros", seed), Draw(wide, seed)):
        if time.thread_time() - started > EXTRA_SECONDS:
            break
        outputs = programs.outputs(draw, precision)
        if draw == fresh or programs.comparable(draw, outputs):
            found[draw] = outputs
    return Reference(precision, found)


def _first(programs: _Programs, seed: int) -> tuple[Draw, list[Array], Precision]:
    draw = Draw("signed", seed)
    outputs, precision = programs.best(draw)
    strange = _strange(outputs)
    if strange:
        other = Draw("positive", seed)
        positive, used = programs.best(other)
        if _strange(positive) < strange:
            return other, positive, used
    return draw, outputs, precision


def _strange(outputs: list[Array]) -> int:
    return sum(
        int(np.count_nonzero(~np.isfinite(o.astype(np.float32))))
        for o in outputs
        if is_float(o.dtype)
    )


class _Programs:
    """The function of a task as written and, where that can be, in float64; compiled when used."""

    def __init__(self, task: Task, target: Target) -> None:
        self._task = task
        self._target = target
        self._high = in_float64(task.workload.function)
        exact = any(not is_float(numpy_dtype(t.dtype)) for t in outputs_of(task.workload))
        # Where a rounding error moves a result by a whole step, float64 may take the other one.
        self._steps = exact or has_steps(task.workload.function)

    def best(self, draw: Draw) -> tuple[list[Array], Precision]:
        """The outputs on ``draw``, in float64 where possible."""
        if self._high is None:
            return self.outputs(draw, "as written"), "as written"
        outputs = self.outputs(draw, "float64")
        if self._steps:
            written, work = self.outputs(draw, "as written"), self._task.workload
            if not compare_outputs(work, written, outputs, tolerance_of(work)).right:
                return written, "as written"
        return outputs, "float64"

    def comparable(self, draw: Draw, outputs: list[Array]) -> bool:
        """Whether every right program must come near to ``outputs``."""
        if _strange(outputs):
            return False
        if self._high is None:
            return True
        written = self.outputs(draw, "as written")
        work = self._task.workload
        return compare_outputs(work, written, outputs, tolerance_of(work) / 4).right

    def outputs(self, draw: Draw, precision: Precision) -> list[Array]:
        """Run on ``draw``; the outputs are of the workload's own types."""
        import tvm

        work = self._task.workload
        arrays = make_inputs(work, draw.variant, draw.seed) + list(map(poison, outputs_of(work)))
        if precision == "float64":
            arrays = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        library = self._in_float64 if precision == "float64" else self._as_written
        library["main"](*tensors)
        made = [tensor.numpy() for tensor in tensors[len(tensors) - work.outputs :]]
        with np.errstate(over="ignore"):  # to infinity, as in float32
            return [
                array.astype(np.float32) if t.dtype == "float32" else array
                for array, t in zip(made, outputs_of(work), strict=True)
            ]

    @cached_property
    def _as_written(self) -> Any:
        return self._compiled(self._task.workload.function)

    @cached_property
    def _in_float64(self) -> Any:
        assert self._high is not None
        return self._compiled(self._high)

    def _compiled(self, function: str) -> Any:
        import tvm

        module = _plain_loops(tvm.ir.load_json(function))
        work = max(self._task.flops, self._task.bytes / 4)
        return compile_functions(module, self._target, level=0 if work < SMALL else 1)


def _plain_loops(module: Any) -> Any:
    """The function with each block's outermost independent loop in parallel.

    The innermost one goes inside of a reduction, which then walks through memory in order: several
    times faster, and every sum is still made in the order in which it is written.
    """
    from tvm import s_tir

    schedule = s_tir.Schedule(module, debug_mask=0, error_render_level="fast")
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        kinds = [int(variable.iter_type) for variable in schedule.get(block).iter_vars]
        if len(kinds) != len(loops):
            continue
        free = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
        reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != 0]
        long = [loop for loop in free if int(schedule.get(loop).extent) > 1]
        try:
            if reduced and len(long) > 1:
                schedule.reorder(*(loop for loop in free if loop != long[-1]), *reduced, long[-1])
            if long:
                schedule.parallel(long[0])
            if reduced and len(long) > 1:
                schedule.decompose_reduction(block, reduced[0])
        except s_tir.ScheduleError:
            continue  # it is only slower
    function = schedule.mod["main"].with_attr("global_symbol", "main")
    schedule.mod.update_func(schedule.mod.get_global_var("main"), function)
    return schedule.mod
