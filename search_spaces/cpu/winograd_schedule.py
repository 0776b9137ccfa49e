"""How the decisions of ``cpu.winograd`` become a schedule of the rewritten function."""

from __future__ import annotations

from typing import Any

from search_spaces.cpu.structure import even_part
from search_spaces.cpu.winograd_function import Tiling
from search_spaces.task import Parameters, Target, Task


class WinogradSchedule:
    """Applies one set of parameters; each method is one step of the schedule."""

    def __init__(
        self, schedule: Any, task: Task, tiling: Tiling, target: Target, parameters: Parameters
    ) -> None:
        self.sch = schedule
        self.task = task
        self.tiling = tiling
        self.p = parameters
        self.lanes = target.lanes()
        self.phases = bool(parameters["phases"])
        self.parallel = bool(parameters["parallel"])

    def run(self) -> None:
        sch = self.sch
        image = self.tiling.image
        blocks = {sch.get(b).name_hint: b for b in sch.get_child_blocks(sch.get_sblock("root"))}
        handles = list(sch.get_child_blocks(sch.get_sblock("root")))
        output = handles[-1]
        first = 0 if image.data is not None else 1
        for handle in handles[first + 5 : -1]:  # the convolution itself and what follows it
            sch.compute_inline(handle)
        sch.annotate(blocks["kernels"], "meta_schedule.layout_rewrite_preproc", True)
        stored = sch.cache_write(blocks["products"], 0, "local")
        chunk, pixels = self._output(output)
        self._columns(blocks["columns"], pixels)
        self._products(blocks["products"], stored, chunk)
        self._tiles(blocks["tiles"], blocks["rows"], chunk)
        if first:
            self._padding(handles[0], chunk)

    def _output(self, output: Any) -> tuple[Any, Any]:
        """Pixels tile by tile; returns the loop of one chunk and of one tile's vector."""
        sch, t = self.sch, self.tiling
        kept = t.image.nest.kept
        n, h, w, k = sch.get_loops(output)
        chunk, row, y = sch.split(h, [None, t.band, t.size])
        tile, x = sch.split(w, [None, t.size])
        even = even_part(kept, self.lanes)
        vector, lane = sch.split(k, [None, even if even >= 4 else self.lanes])
        sch.reorder(n, chunk, row, tile, vector, y, x, lane)
        outer = sch.fuse(n, chunk)
        if self.phases and self.parallel:
            shared = sch.fuse(outer, row)
            sch.parallel(shared)
        elif self.parallel:
            sch.parallel(outer)
        for loop in (y, x):
            sch.unroll(loop)
        sch.vectorize(lane)
        return outer, vector

    def _columns(self, columns: Any, at: Any) -> None:
        sch = self.sch
        sch.compute_at(columns, at, preserve_unit_loops=True)
        *_, y, f, _, vector, lane = sch.get_loops(columns)
        for loop in (y, f, vector):
            sch.unroll(loop)
        sch.vectorize(lane)

    def _products(self, products: Any, stored: Any, chunk: Any) -> None:
        """The products of matrices: a register tile over the whole reduction."""
        sch, t = self.sch, self.tiling
        if not self.phases:
            sch.compute_at(stored, chunk, preserve_unit_loops=True)
        q, e, f, tile, vector, lane = sch.get_loops(stored)[-6:]
        outer, row = sch.split(tile, [None, t.rows])
        panel, several = sch.split(vector, [None, t.vectors])
        sch.reorder(q, e, f, panel, outer, row, several, lane)
        if self.phases:
            shared = sch.fuse(q, e, f, panel)
            if self.parallel:
                sch.parallel(shared)
        sch.vectorize(lane)
        for loop in (row, several):
            sch.unroll(loop)
        sch.compute_at(products, outer, preserve_unit_loops=True)
        *_, row, several, lane, depth = sch.get_loops(products)
        depth, step = sch.split(depth, [None, int(self.p["unroll"])])
        sch.reorder(depth, step, row, several, lane)
        sch.vectorize(lane)
        for loop in (step, row, several):
            sch.unroll(loop)
        init = sch.decompose_reduction(products, depth)
        *_, row, several, lane = sch.get_loops(init)
        sch.vectorize(lane)
        for loop in (row, several):
            sch.unroll(loop)

    def _tiles(self, tiles: Any, rows: Any, chunk: Any) -> None:
        """Transform each tile in registers, a vector of channels at a time."""
        sch = self.sch
        if not self.phases:
            sch.compute_at(tiles, chunk, preserve_unit_loops=True)
        q, e, f, tile, c = sch.get_loops(tiles)[-5:]
        vector, lane = sch.split(c, [None, even_part(self.tiling.image.channels, self.lanes)])
        sch.reorder(q, tile, vector, e, f, lane)
        if self.phases and self.parallel:
            sch.parallel(sch.fuse(q, tile))
        sch.compute_at(rows, vector, preserve_unit_loops=True)
        *_, own_e, own_j, _, own_lane = sch.get_loops(rows)
        for loop in (e, f, own_e, own_j):
            sch.unroll(loop)
        sch.vectorize(lane)
        sch.vectorize(own_lane)

    def _padding(self, padding: Any, chunk: Any) -> None:
        """Pad the rows of a chunk inside it, or all rows before the first phase."""
        sch = self.sch
        if self.phases:
            loops = list(sch.get_loops(padding))
            if self.parallel:
                sch.parallel(sch.fuse(*loops[:2]))
        else:
            sch.compute_at(padding, chunk, preserve_unit_loops=True)
        last = sch.get_loops(padding)[-1]
        _, lane = sch.split(last, [None, even_part(self.tiling.image.channels, self.lanes)])
        sch.vectorize(lane)
