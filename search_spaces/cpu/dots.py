"""Register-tiled sums of products of short numbers, on targets that have an instruction for them.

As ``cpu.tiled``, but each step of the reduction is several steps deep: weights are packed so that
the numbers of a column that are multiplied together lie together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from search_spaces.base import InvalidParameters
from search_spaces.cpu.dot import BFLOAT16, IMPORT, INTEGER, Dot
from search_spaces.cpu.loops import in_registers
from search_spaces.cpu.registers import divisors, register_tile
from search_spaces.cpu.structure import Tiled, tiled
from search_spaces.cpu.tiled import MAX_ROWS, MAX_VECTORS, TiledSpace, clip, powers
from search_spaces.cpu.tiled_schedule import TiledSchedule
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

UNROLL = (1, 2, 3, 4, 5, 8)


class DotSpace(TiledSpace):
    """Tile sizes, loop order, unrolling and parallel grain of one tiled sum by an instruction.

    ``unroll`` counts instructions, of several steps each. Tiles are full: what they hold divides
    the rows and the columns.
    """

    dot: ClassVar[Dot]

    def matches(self, task: Task, target: Target) -> bool:
        nest, lanes = tiled(task.workload), self.dot.lanes(target)
        return (
            nest is not None
            and nest.block.name.startswith(f"{self.dot.kind}_")
            and nest.packed is not None
            and nest.columns % (lanes or nest.columns + 1) == 0
            and nest.lanes(target) == lanes
            and nest.block.axes[nest.reduced[-1]].extent % self.dot.depth == 0
        )

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        found = super().parameters(task, target)
        nest, steps = self._nest(task), self._steps(task)
        found["rows"] = CategoricalDistribution(divisors(nest.rows, MAX_ROWS))
        found["vectors"] = CategoricalDistribution(self._panels(nest, target))
        found.pop("algorithm", None)  # what is gathered for a product is nothing to an instruction
        if nest.padding is not None:
            found["padding"] = CategoricalDistribution(_places(task, nest))
        found["unroll"] = CategoricalDistribution([u for u in UNROLL if steps % u == 0])
        return found

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        nest = self._nest(task)
        chosen = super().default(task, target)
        chosen.pop("algorithm", None)
        if nest.padding is not None and chosen["padding"] not in _places(task, nest):
            chosen["padding"] = "band"
        rows, vectors = register_tile(
            divisors(nest.rows, MAX_ROWS),
            self._panels(nest, target),
            target.vector_registers,
            tall=True,
        )
        columns = vectors * self.dot.lanes(target)
        chosen |= {
            "rows": rows,
            "vectors": vectors,
            "row_tiles": clip(int(chosen["row_tiles"]), powers(nest.rows // rows)),
            "column_tiles": clip(int(chosen["column_tiles"]), powers(nest.columns // columns)),
        }
        if chosen.get("epilogue") == "chunk":
            chosen["epilogue"] = "tile"
        steps = self._steps(task)
        most = 1 if chosen.get("unroll_window", False) else max(1, 64 // (rows * vectors))
        chosen["unroll"] = max(u for u in UNROLL if steps % u == 0 and u <= most)
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        self._check(task, target, parameters)
        found = super().features(task, target, parameters)
        for name in ("panel_bytes", "panels_bytes", "data_bytes"):
            found[name] /= self.dot.depth
        return found

    def schedule_of(
        self, schedule: Any, task: Task, nest: Tiled, target: Target, parameters: Parameters
    ) -> TiledSchedule:
        self._check(task, target, parameters)
        return DotSchedule(schedule, task, nest, target, parameters, self.dot)

    def _nest(self, task: Task) -> Tiled:
        found = tiled(task.workload)
        if found is None or not found.block.name.startswith(f"{self.dot.kind}_"):
            raise InvalidParameters(f"{task.workload.name} is no sum of {self.dot.types[0]}")
        return found

    def _steps(self, task: Task) -> int:
        """Instructions along the last axis of the reduction."""
        nest = self._nest(task)
        return nest.block.axes[nest.reduced[-1]].extent // self.dot.depth

    def _panels(self, nest: Tiled, target: Target) -> list[int]:
        """How many vectors may be one panel."""
        return divisors(nest.columns // self.dot.lanes(target), MAX_VECTORS)

    def _check(self, task: Task, target: Target, p: Parameters) -> None:
        nest = self._nest(task)
        if nest.padding is not None and p["padding"] not in _places(task, nest):
            raise InvalidParameters("padding would be a condition of an instruction")
        if nest.rows % int(p["rows"]) or int(p["vectors"]) not in self._panels(nest, target):
            raise InvalidParameters("the tile does not divide the rows or the columns")
        if self._steps(task) % int(p["unroll"]):
            raise InvalidParameters(
                f"the reduction is not a multiple of {p['unroll']} instructions"
            )


class IntegerSpace(DotSpace):
    """Sums of 8-bit numbers, four at a time."""

    name = "cpu.integer"
    version = 1
    priority = 35
    dot = INTEGER


class BFloat16Space(DotSpace):
    """Sums of bfloat16 numbers in float32, two at a time."""

    name = "cpu.bfloat16"
    version = 1
    priority = 35
    dot = BFLOAT16


class DotSchedule(TiledSchedule):
    """The steps of ``cpu.tiled``, with an instruction in place of the innermost loops."""

    _reduction: Any
    _innermost: Any

    def __init__(
        self,
        schedule: Any,
        task: Task,
        nest: Tiled,
        target: Target,
        parameters: Parameters,
        dot: Dot,
    ) -> None:
        super().__init__(schedule, task, nest, target, parameters)
        self.dot = dot

    def _layout(self, head: list[Any], column: Any, rest: list[Any], last: int) -> list[Any]:
        depth, width = rest[last], self.width
        rest = [*rest[:last], depth // self.dot.depth, *rest[last + 1 :]]
        return [*head, column // width, *rest, column % width, depth % self.dot.depth]

    def _finish(self) -> None:
        # Nothing can be moved to where an instruction reads it any more. The condition of a chunk
        # that is not full becomes that of the whole tile, or it would be one of the instruction.
        self.sch.blockize(self._reduction)
        self.sch.tensorize(self._innermost, self.dot.intrinsic(self.lanes))
        if self.dot.imported:
            self.sch.annotate(self.chunk, IMPORT, self.dot.function(self.lanes))

    def _zero(self) -> Any:
        from tvm import tirx

        return tirx.IntImm(self.dot.types[1], 0)

    def _reduce(
        self, anchor: Any, outer: list[Any], last: Any, spatial: list[Any], columns: list[Any]
    ) -> None:
        sch = self.sch
        last, step, parts = sch.split(
            last, [None, int(self.p["unroll"]), self.dot.depth], preserve_unit_iters=True
        )
        outer = [*outer, last]
        cv, cl = columns
        if self.p.get("unroll_window", False):
            for loop in outer:
                sch.unroll(loop)
        sch.reorder(*outer, step, *spatial, cv, cl, parts)
        for loop in (step, *spatial, cv):
            sch.unroll(loop)
        init = sch.decompose_reduction(anchor, outer[0])
        in_registers(sch, sch.get_loops(init)[-len(spatial) - 2 :])
        self._reduction, self._innermost = outer[0], cl


def _places(task: Task, nest: Tiled) -> list[str]:
    """Where data may be padded: not where it is read, since an instruction has no conditions."""
    places = copied(task, nest)
    return places if task.workload.blocks[nest.padding or 0].ops else [*places, "inline"]


def copied(task: Task, nest: Tiled) -> list[str]:
    """Where padded data may be copied to: for a chunk, or all of it where there are loops to share
    among threads."""
    block = task.workload.blocks[nest.padding or 0]
    return ["band", "whole"] if len(block.axes) > 2 else ["band"]
