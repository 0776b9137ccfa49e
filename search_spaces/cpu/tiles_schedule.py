"""How the decisions of ``cpu.tiles`` become a schedule."""

from __future__ import annotations

from math import ceil
from typing import Any

from search_spaces.base import InvalidParameters
from search_spaces.cpu.dot import IMPORT
from search_spaces.cpu.dots import DotSchedule
from search_spaces.cpu.loops import cut_tails
from search_spaces.cpu.structure import Tiled, stored_vector
from search_spaces.cpu.tile import BEGIN, Tiles, depth_of
from search_spaces.cpu.tile_steps import register


class TileSchedule(DotSchedule):
    """The steps of ``cpu.tiled`` with a chunk for the sums, and tiles in place of registers."""

    whole = True
    tiles: Tiles
    _stored: Any
    _steps: tuple[Any, Any, Any]

    def run(self) -> None:
        blocks = self.sch.get_child_blocks(self.sch.get_sblock("root"))
        stride = _stride(self.sch.get(blocks[self.nest.anchor]), self.nest)
        self.tiles = Tiles.of(self.dot, self.rows, self.vectors, stride)
        super().run()

    def _layout(self, head: list[Any], column: Any, rest: list[Any], last: int) -> list[Any]:
        # What one step reads of the weights are whole dimensions next to each other.
        depth = [*rest[last + 1 :], *rest[: last + 1]]
        return super()._layout(head, column, depth, len(depth) - 1)

    def _tile_apart(self, anchor: Any, output: Any) -> tuple[Any, Any]:
        sch, p = self.sch, self.p
        stored = sch.cache_write(anchor, 0, "local")
        parallel, inner, row, column = self._banded(output)
        rows = self.rows * int(p["row_tiles"])
        ro, ri = sch.split(row, [None, rows], preserve_unit_iters=True)
        vector = stored_vector(self.nest.kept, self.lanes)
        width = self.width * int(p["column_tiles"])
        each = ceil(min(width, self.nest.kept) / vector)
        co, ci, cl = sch.split(column, [None, each, vector], preserve_unit_iters=True)
        parallel = self._ordered([*parallel, ro], co)
        sch.reorder(*parallel, *inner, ri, ci, cl)
        chunk = self._shared(parallel)
        if self.nest.kept % vector:
            cut_tails(sch, ci)
        sch.vectorize(cl)

        sch.compute_at(stored, chunk, preserve_unit_loops=True)
        *rest, row, column, lane = sch.get_loops(stored)[1:]
        ro, ri = sch.split(row, [None, self.rows], preserve_unit_iters=True)
        co, ci = sch.split(column, [None, self.vectors], preserve_unit_iters=True)
        tiles = self._tiles_in_order(co, [*rest, ro])
        sch.reorder(*tiles, *((ri, ci) if self.vectors > 1 else (ci, ri)), lane)
        self._stored = ri
        return chunk, tiles[-1]

    def _reduce(
        self, anchor: Any, outer: list[Any], last: Any, spatial: list[Any], columns: list[Any]
    ) -> None:
        sch = self.sch
        last, step = sch.split(last, [None, depth_of(self.dot)], preserve_unit_iters=True)
        outer = [*outer, last]
        *others, row = spatial
        tile = [row, *columns] if self.vectors > 1 else [columns[0], row, columns[1]]
        sch.reorder(*outer, *others, *tile, step)
        init = sch.decompose_reduction(anchor, outer[0])
        alone = self.vectors == 1
        self._steps = (sch.get_loops(init)[-2 if alone else -3], row, self._stored)

    def _finish(self) -> None:
        register(self.tiles)
        for loop, name in zip(self._steps, self.tiles.intrinsics, strict=True):
            self.sch.tensorize(loop, name)
        self.sch.annotate(self.chunk, BEGIN, self.tiles.name)
        self.sch.annotate(self.chunk, IMPORT, self.tiles.functions)


def _stride(block: Any, nest: Tiled) -> int:
    """How far apart in the data the rows of a tile are."""
    from tvm import sym, tirx

    (axis,) = nest.tile
    row = block.iter_vars[axis].var
    (data,) = (read for position, read in enumerate(block.reads) if position != nest.packed)
    for dim in data.region:
        if any(used.same_as(row) for used in tirx.analysis.undefined_vars(dim.min)):
            factors = sym.detect_linear_equation(dim.min, [row])
            if len(factors) == 2 and isinstance(factors[0], tirx.IntImm):
                return int(factors[0])
    raise InvalidParameters("the rows of a tile are not evenly apart in the data")
