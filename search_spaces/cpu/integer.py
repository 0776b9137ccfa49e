"""Register-tiled sums of products of 8-bit numbers, on targets that have an instruction for them.

As ``cpu.tiled``, but each step of the reduction is four steps deep: weights are packed so that the
four numbers of a column lie together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters
from search_spaces.cpu.dot import DEPTH, intrinsic, lanes_of
from search_spaces.cpu.loops import in_registers
from search_spaces.cpu.registers import divisors, register_tile
from search_spaces.cpu.structure import Tiled, tiled
from search_spaces.cpu.tiled import MAX_ROWS, MAX_VECTORS, TiledSpace, clip, powers
from search_spaces.cpu.tiled_schedule import TiledSchedule
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

UNROLL = (1, 2, 3, 4, 5, 8)


class IntegerSpace(TiledSpace):
    """Tile sizes, loop order, unrolling and parallel grain of one tiled sum of whole numbers.

    ``unroll`` counts instructions, of four steps each. Tiles are full: what they hold divides the
    rows and the columns.
    """

    name = "cpu.integer"
    version = 1
    priority = 35

    def matches(self, task: Task, target: Target) -> bool:
        nest = tiled(task.workload)
        return (
            nest is not None
            and nest.block.name.startswith("integer_")
            and nest.packed is not None
            and nest.columns % (lanes_of(target) or nest.columns + 1) == 0
            and nest.lanes(target) == lanes_of(target)
        )

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        found = super().parameters(task, target)
        nest, steps = _nest(task), _steps(task)
        found["rows"] = CategoricalDistribution(divisors(nest.rows, MAX_ROWS))
        found["vectors"] = CategoricalDistribution(_panels(nest, target))
        found.pop("algorithm", None)  # what is gathered for a product is nothing to an instruction
        if nest.padding is not None:
            found["padding"] = CategoricalDistribution(_places(task, nest))
        found["unroll"] = CategoricalDistribution([u for u in UNROLL if steps % u == 0])
        return found

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        nest = _nest(task)
        chosen = super().default(task, target)
        chosen.pop("algorithm", None)
        if nest.padding is not None and chosen["padding"] not in _places(task, nest):
            chosen["padding"] = "band"
        rows, vectors = register_tile(
            divisors(nest.rows, MAX_ROWS),
            _panels(nest, target),
            target.vector_registers,
            tall=True,
        )
        columns = vectors * lanes_of(target)
        chosen |= {
            "rows": rows,
            "vectors": vectors,
            "row_tiles": clip(int(chosen["row_tiles"]), powers(nest.rows // rows)),
            "column_tiles": clip(int(chosen["column_tiles"]), powers(nest.columns // columns)),
        }
        if chosen.get("epilogue") == "chunk":
            chosen["epilogue"] = "tile"
        steps = _steps(task)
        most = 1 if chosen.get("unroll_window", False) else max(1, 64 // (rows * vectors))
        chosen["unroll"] = max(u for u in UNROLL if steps % u == 0 and u <= most)
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        _check(task, target, parameters)
        found = super().features(task, target, parameters)
        for name in ("panel_bytes", "panels_bytes", "data_bytes"):
            found[name] /= 4.0
        return found

    def schedule_of(
        self, schedule: Any, task: Task, nest: Tiled, target: Target, parameters: Parameters
    ) -> TiledSchedule:
        _check(task, target, parameters)
        return IntegerSchedule(schedule, task, nest, target, parameters)


class IntegerSchedule(TiledSchedule):
    """The steps of ``cpu.tiled``, with an instruction in place of the innermost loops."""

    _reduction: Any
    _innermost: Any

    def _layout(self, head: list[Any], column: Any, rest: list[Any], last: int) -> list[Any]:
        depth, width = rest[last], self.width
        rest = [*rest[:last], depth // DEPTH, *rest[last + 1 :]]
        return [*head, column // width, *rest, column % width, depth % DEPTH]

    def _finish(self) -> None:
        # Nothing can be moved to where an instruction reads it any more. The condition of a chunk
        # that is not full becomes that of the whole tile, or it would be one of the instruction.
        self.sch.blockize(self._reduction)
        self.sch.tensorize(self._innermost, intrinsic(self.lanes))

    def _zero(self) -> Any:
        from tvm import tirx

        return tirx.IntImm("int8", 0)

    def _reduce(
        self, anchor: Any, outer: list[Any], last: Any, spatial: list[Any], columns: list[Any]
    ) -> None:
        sch = self.sch
        last, step, four = sch.split(
            last, [None, int(self.p["unroll"]), DEPTH], preserve_unit_iters=True
        )
        outer = [*outer, last]
        cv, cl = columns
        if self.p.get("unroll_window", False):
            for loop in outer:
                sch.unroll(loop)
        sch.reorder(*outer, step, *spatial, cv, cl, four)
        for loop in (step, *spatial, cv):
            sch.unroll(loop)
        init = sch.decompose_reduction(anchor, outer[0])
        in_registers(sch, sch.get_loops(init)[-len(spatial) - 2 :])
        self._reduction, self._innermost = outer[0], cl


def _nest(task: Task) -> Tiled:
    found = tiled(task.workload)
    if found is None or not found.block.name.startswith("integer_"):
        raise InvalidParameters(f"{task.workload.name} is no sum of whole numbers")
    return found


def _steps(task: Task) -> int:
    """Instructions along the last axis of the reduction."""
    nest = _nest(task)
    return nest.block.axes[nest.reduced[-1]].extent // DEPTH


def _panels(nest: Tiled, target: Target) -> list[int]:
    """How many vectors may be one panel."""
    return divisors(nest.columns // lanes_of(target), MAX_VECTORS)


def _places(task: Task, nest: Tiled) -> list[str]:
    """Where data may be padded: not where it is read, since an instruction has no conditions."""
    block = task.workload.blocks[nest.padding or 0]
    places = ["band", "whole"] if len(block.axes) > 2 else ["band"]
    return places if block.ops else [*places, "inline"]


def _check(task: Task, target: Target, p: Parameters) -> None:
    nest = _nest(task)
    if nest.padding is not None and p["padding"] not in _places(task, nest):
        raise InvalidParameters("padding would be a condition of an instruction")
    if nest.rows % int(p["rows"]) or int(p["vectors"]) not in _panels(nest, target):
        raise InvalidParameters("the tile does not divide the rows or the columns")
    if _steps(task) % int(p["unroll"]):
        raise InvalidParameters(f"the reduction is not a multiple of {p['unroll']} instructions")
