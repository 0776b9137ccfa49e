"""How the decisions of ``cpu.separable`` become a schedule, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.cpu.loops import fused, in_registers, index_map, reduced_in_registers
from search_spaces.task import Parameters, Workload

if TYPE_CHECKING:
    from search_spaces.cpu.separable import Separable


class SeparableSchedule:
    """Applies one set of parameters; each method is one step of the schedule.

    ``lanes`` are elements of a vector of the result, and of one of what is between.
    """

    def __init__(
        self,
        schedule: Any,
        workload: Workload,
        found: Separable,
        lanes: tuple[int, int],
        parameters: Parameters,
    ) -> None:
        self.sch = schedule
        self.workload = workload
        self.found = found
        self.lanes, self.window_lanes = lanes
        self.p = parameters

    def run(self) -> None:
        sch, found = self.sch, self.found
        handles = sch.get_child_blocks(sch.get_sblock("root"))
        last = len(handles) - 1
        padding = found.padding if self.p.get("padding") == "band" else None
        kept = {found.depthwise, found.feed, found.pointwise, padding, last}
        for index, handle in enumerate(handles):
            if index not in kept:
                sch.compute_inline(handle)
        pointwise, depthwise = handles[found.pointwise], handles[found.depthwise]
        self._pack(pointwise)
        if found.pointwise == last:
            output = sch.cache_write(pointwise, 0, "local")
        else:
            output = handles[last]
            sch.set_scope(pointwise, 0, "local")
        if found.feed == found.depthwise:
            feed = sch.cache_write(depthwise, 0, "local")
        else:
            feed = handles[found.feed]
            sch.set_scope(depthwise, 0, "local")
        chunk, tile = self._output(output)
        self._products(pointwise, tile)
        self._window(depthwise, feed, chunk)
        if padding is not None:
            self._padding(handles[padding], chunk)

    def _pack(self, pointwise: Any) -> None:
        """Lay the pointwise weights out as [outputs / width][channels][width]."""
        sch = self.sch
        width = int(self.p["vectors"]) * self.lanes
        dims = len(self.workload.blocks[self.found.pointwise].reads[1].dims)
        packed = sch.cache_read(pointwise, 1, "global")

        def panels(*index: Any) -> list[Any]:
            return [index[-1] // width, *index[:-1], index[-1] % width]

        sch.transform_layout(pointwise, ("read", 1), index_map(sch, panels, dims))
        sch.annotate(packed, "meta_schedule.layout_rewrite_preproc", True)

    def _output(self, output: Any) -> tuple[Any, Any]:
        """Tile the result; returns the loops of a chunk and of a register tile."""
        sch, p = self.sch, self.p
        image, row, pixel, channel = sch.get_loops(output)
        ro, ri = sch.split(row, [None, int(p["band"])])
        po, pt, pr = sch.split(pixel, [None, int(p["tiles"]), int(p["rows"])])
        panel, vector, lane = sch.split(channel, [None, int(p["vectors"]), self.lanes])
        tiles = [panel, ri, pt] if p["order"] == "rows" else [ri, pt, panel]
        sch.reorder(image, ro, po, *tiles, pr, vector, lane)
        chunk = fused(sch, [image, ro, po])
        sch.parallel(chunk)
        in_registers(sch, [pr, vector, lane])
        return chunk, tiles[-1]

    def _products(self, pointwise: Any, tile: Any) -> None:
        sch, p = self.sch, self.p
        sch.compute_at(pointwise, tile, preserve_unit_loops=True)
        *_, pixel, channel, depth = sch.get_loops(pointwise)
        vector, lane = sch.split(channel, [int(p["vectors"]), self.lanes])
        depth, step = sch.split(depth, [None, int(p["unroll"])], preserve_unit_iters=True)
        reduced_in_registers(sch, pointwise, [depth], [step], [pixel, vector, lane])

    def _window(self, depthwise: Any, feed: Any, chunk: Any) -> None:
        """The depthwise convolution of a chunk, and what follows it, into the cache."""
        sch, p = self.sch, self.p
        vectors, lanes = int(p["window_vectors"]), self.window_lanes
        sch.compute_at(feed, chunk, preserve_unit_loops=True)
        *_, row, pixel, channel = sch.get_loops(feed)
        outer, pixels = sch.split(pixel, [None, int(p["window_rows"])])
        panel, vector, lane = sch.split(channel, [None, vectors, lanes])
        sch.reorder(row, outer, panel, pixels, vector, lane)
        in_registers(sch, [pixels, vector, lane])
        sch.compute_at(depthwise, panel, preserve_unit_loops=True)
        window = len(self.workload.blocks[self.found.depthwise].axes) - 4
        loops = sch.get_loops(depthwise)
        taps = loops[-window:]
        pixels, channel = loops[-window - 2 : -window]
        vector, lane = sch.split(channel, [vectors, lanes])
        reduced_in_registers(sch, depthwise, taps[:1], taps[1:], [pixels, vector, lane])

    def _padding(self, padding: Any, chunk: Any) -> None:
        sch = self.sch
        sch.compute_at(padding, chunk, preserve_unit_loops=True)
        _, lane = sch.split(sch.get_loops(padding)[-1], [None, self.window_lanes])
        sch.vectorize(lane)
