"""How the decisions of ``cpu.attention`` become a schedule, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.cpu.loops import fused, in_registers, index_map, reduced_in_registers
from search_spaces.task import Parameters, Workload

if TYPE_CHECKING:
    from search_spaces.cpu.attention import Attention

COPIED = 8
"""Elements of a key that are read one after the other while keys are turned around."""


class AttentionSchedule:
    """Applies one set of parameters; each method is one step of the schedule.

    ``lanes`` are elements of a vector of scores, and of one of values.
    """

    def __init__(
        self,
        schedule: Any,
        workload: Workload,
        found: Attention,
        lanes: tuple[int, int],
        parameters: Parameters,
    ) -> None:
        self.sch = schedule
        self.workload = workload
        self.found = found
        self.lanes, self.value_lanes = lanes
        self.p = parameters

    def run(self) -> None:
        sch, found = self.sch, self.found
        handles = sch.get_child_blocks(sch.get_sblock("root"))
        copied = found.values if self.p.get("copy") else None
        staged = [index for index in (found.keys, copied) if index is not None]
        output = len(handles) - 1
        kept = {found.scores, found.scaled, found.peak, found.weights, found.total, found.product}
        for index, handle in enumerate(handles):
            if index not in {*kept, *staged, output}:
                sch.compute_inline(handle)
        if found.keys is not None:
            self._pack(handles[found.scores])
        parts = {i: self._lanes_apart(handles[i]) for i in (found.peak, found.total)}
        if found.scaled is None:
            scaled = sch.cache_write(handles[found.scores], 0, "local")
        else:
            scaled = handles[found.scaled]
            sch.set_scope(handles[found.scores], 0, "local")
        head, tile, values = self._output(handles[output])
        self._product(handles[found.product], values)
        self._reduced(handles[found.total], parts[found.total], tile)
        self._elementwise(handles[found.weights], tile)
        self._reduced(handles[found.peak], parts[found.peak], tile)
        self._scores(handles[found.scores], scaled, tile)
        for index in reversed(staged):
            self._stage(handles[index], head, turned=index == found.keys)

    def _pack(self, scores: Any) -> None:
        """Lay the keys out as [keys / width][depth][width].

        Lying in long rows they would fall into few sets of the first cache.
        """
        dims = len(self.workload.blocks[self.found.scores].reads[1].dims)
        width = int(self.p["vectors"]) * self.lanes

        def panels(*index: Any) -> list[Any]:
            *batch, depth, key = index
            return [*batch, key // width, depth, key % width]

        self.sch.transform_layout(scores, ("read", 1), index_map(self.sch, panels, dims))

    def _lanes_apart(self, handle: Any) -> Any:
        """Split a reduction of rows into one partial result for each lane of a vector."""
        sch = self.sch
        *spatial, length = sch.get_loops(handle)
        _, lane = sch.split(length, [None, self.lanes])
        return sch.rfactor(lane, factor_axis=len(spatial))

    def _output(self, output: Any) -> tuple[Any, Any, Any]:
        """Tile the result; returns the loops of a head, of a tile of rows and of its registers."""
        sch, p = self.sch, self.p
        loops = sch.get_loops(output)
        *batch, row, column = [loops[axis] for axis in self.found.order]
        tile, rest = sch.split(row, [None, int(p["tile"])])
        outer, rows = sch.split(rest, [None, int(p["value_rows"])])
        panel, vector, lane = sch.split(column, [None, int(p["value_vectors"]), self.value_lanes])
        sch.reorder(*batch, tile, outer, panel, rows, vector, lane)
        head = fused(sch, batch)
        if p["share"] == "tiles":
            head = tile = sch.fuse(head, tile)
        sch.parallel(head)
        in_registers(sch, [rows, vector, lane])
        return head, tile, panel

    def _product(self, product: Any, at: Any) -> None:
        """Weights times values, in registers over all keys."""
        sch = self.sch
        sch.set_scope(product, 0, "local")
        sch.compute_at(product, at, preserve_unit_loops=True)
        *_, rows, column, depth = sch.get_loops(product)
        self._registers(
            product, rows, column, depth, int(self.p["value_vectors"]), self.value_lanes
        )

    def _scores(self, scores: Any, scaled: Any, tile: Any) -> None:
        """Queries times keys, in registers, then scaled and masked on the way to the cache."""
        sch, p = self.sch, self.p
        vectors = int(p["vectors"])
        sch.compute_at(scaled, tile, preserve_unit_loops=True)
        *_, row, column = sch.get_loops(scaled)
        outer, rows = sch.split(row, [None, int(p["rows"])])
        panel, vector, lane = sch.split(column, [None, vectors, self.lanes])
        sch.reorder(panel, outer, rows, vector, lane)
        in_registers(sch, [rows, vector, lane])
        sch.compute_at(scores, outer, preserve_unit_loops=True)
        *_, rows, column, depth = sch.get_loops(scores)
        self._registers(scores, rows, column, depth, vectors, self.lanes)

    def _registers(
        self, block: Any, rows: Any, column: Any, depth: Any, vectors: int, lanes: int
    ) -> None:
        sch = self.sch
        vector, lane = sch.split(column, [vectors, lanes])
        unroll = int(self.p["unroll"])
        if int(sch.get(depth).extent) % unroll:
            unroll = 1
        depth, step = sch.split(depth, [None, unroll], preserve_unit_iters=True)
        reduced_in_registers(sch, block, [depth], [step], [rows, vector, lane])

    def _elementwise(self, block: Any, tile: Any) -> None:
        sch = self.sch
        sch.compute_at(block, tile, preserve_unit_loops=True)
        _, lane = sch.split(sch.get_loops(block)[-1], [None, self.lanes])
        sch.vectorize(lane)

    def _reduced(self, whole: Any, part: Any, tile: Any) -> None:
        """A row's lanes, and then their sum or maximum."""
        sch = self.sch
        sch.compute_at(whole, tile, preserve_unit_loops=True)
        sch.compute_at(part, tile, preserve_unit_loops=True)
        sch.unroll(sch.get_loops(whole)[-1])
        own = sch.get_loops(part)[-2:]
        kinds = [int(var.iter_type) for var in sch.get(part).iter_vars][-2:]
        step, lane = own if kinds[0] == 2 else own[::-1]
        sch.reorder(step, lane)
        sch.vectorize(lane)
        init = sch.decompose_reduction(part, step)
        sch.vectorize(sch.get_loops(init)[-1])

    def _stage(self, block: Any, head: Any, turned: bool) -> None:
        """Bring the keys (or the values) of a head side by side, or of all heads at once."""
        sch = self.sch
        lanes = self.lanes if turned else self.value_lanes
        if self.p["share"] == "tiles":
            *batch, row, column = sch.get_loops(block)
            sch.parallel(fused(sch, batch))
        else:
            sch.compute_at(block, head, preserve_unit_loops=True)
            *_, row, column = sch.get_loops(block)
        outside, lane = sch.split(column, [None, lanes])
        if turned:
            several, one = sch.split(row, [None, COPIED if self.found.depth % COPIED == 0 else 1])
            sch.reorder(outside, several, one, lane)
            sch.unroll(one)
        sch.vectorize(lane)
