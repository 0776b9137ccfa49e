"""How the decisions of ``cpu.winograd`` become a schedule of the rewritten function."""

from __future__ import annotations

from typing import Any

from search_spaces.cpu.loops import fused, in_registers, reduced_in_registers
from search_spaces.cpu.structure import even_part, stored_vector
from search_spaces.cpu.winograd_function import Tiling
from search_spaces.task import Parameters, Target


class WinogradSchedule:
    """Applies one set of parameters; each method is one step of the schedule."""

    def __init__(
        self, schedule: Any, tiling: Tiling, target: Target, parameters: Parameters
    ) -> None:
        self.sch = schedule
        self.tiling = tiling
        self.p = parameters
        self.lanes = target.lanes()
        self.phases = bool(parameters["phases"])
        self.parallel = bool(parameters["parallel"])

    def run(self) -> None:
        sch = self.sch
        handles = list(sch.get_child_blocks(sch.get_sblock("root")))
        padding = handles.pop(0) if self.tiling.image.data is None else None
        blocks = {sch.get(handle).name_hint: handle for handle in handles[:5]}
        *after, output = handles[5:]  # the convolution itself and what follows it
        for handle in after:
            sch.compute_inline(handle)
        sch.annotate(blocks["kernels"], "meta_schedule.layout_rewrite_preproc", True)
        stored = sch.cache_write(blocks["products"], 0, "local")
        chunk, pixels = self._output(output)
        self._columns(blocks["columns"], pixels)
        self._products(blocks["products"], stored, chunk)
        self._tiles(blocks["tiles"], blocks["rows"], chunk)
        if padding is not None:
            self._padding(padding, chunk)

    def _output(self, output: Any) -> tuple[Any, Any]:
        """Pixels tile by tile; returns the loop of one chunk and of one tile's vector."""
        sch, t = self.sch, self.tiling
        n, h, w, k = sch.get_loops(output)
        chunk, row, y = sch.split(h, [None, t.band, t.size])
        tile, x = sch.split(w, [None, t.size])
        vector, lane = sch.split(k, [None, stored_vector(t.image.nest.kept, self.lanes)])
        sch.reorder(n, chunk, row, tile, vector, y, x, lane)
        outer = sch.fuse(n, chunk)
        self._share(*([outer, row] if self.phases else [outer]))
        in_registers(sch, [y, x, lane])
        return outer, vector

    def _columns(self, columns: Any, at: Any) -> None:
        sch = self.sch
        sch.compute_at(columns, at, preserve_unit_loops=True)
        *_, y, f, _, vector, lane = sch.get_loops(columns)
        in_registers(sch, [y, f, vector, lane])

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
            self._share(sch.fuse(q, e, f, panel))
        in_registers(sch, [row, several, lane])
        sch.compute_at(products, outer, preserve_unit_loops=True)
        *_, row, several, lane, depth = sch.get_loops(products)
        depth, step = sch.split(depth, [None, int(self.p["unroll"])])
        reduced_in_registers(sch, products, [depth], [step], [row, several, lane])

    def _tiles(self, tiles: Any, rows: Any, chunk: Any) -> None:
        """Transform each tile in registers, a vector of channels at a time."""
        sch = self.sch
        if not self.phases:
            sch.compute_at(tiles, chunk, preserve_unit_loops=True)
        q, e, f, tile, c = sch.get_loops(tiles)[-5:]
        vector, lane = sch.split(c, [None, self._channels()])
        sch.reorder(q, tile, vector, e, f, lane)
        if self.phases:
            self._share(q, tile)
        sch.compute_at(rows, vector, preserve_unit_loops=True)
        *_, own_e, own_j, _, own_lane = sch.get_loops(rows)
        in_registers(sch, [e, f, lane])
        in_registers(sch, [own_e, own_j, own_lane])

    def _padding(self, padding: Any, chunk: Any) -> None:
        """Pad the rows of a chunk inside it, or all rows before the first phase."""
        sch = self.sch
        if self.phases:
            self._share(*sch.get_loops(padding)[:2])
        else:
            sch.compute_at(padding, chunk, preserve_unit_loops=True)
        last = sch.get_loops(padding)[-1]
        _, lane = sch.split(last, [None, self._channels()])
        sch.vectorize(lane)

    def _channels(self) -> int:
        """Channels in one vector: such as leave no tail."""
        return even_part(self.tiling.image.channels, self.lanes)

    def _share(self, *loops: Any) -> None:
        """Make one loop of ``loops``, among threads, if that is chosen."""
        if self.parallel:
            self.sch.parallel(fused(self.sch, loops))
