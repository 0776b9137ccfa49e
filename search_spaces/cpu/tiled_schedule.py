"""How the decisions of ``cpu.tiled`` become a schedule, step by step."""

from __future__ import annotations

from math import ceil
from typing import Any

from search_spaces.cpu.loops import cut_tails, fused, in_registers, index_map, reduced_in_registers
from search_spaces.cpu.structure import Tiled, stored_vector
from search_spaces.task import Parameters, Target, Task


class TiledSchedule:
    """Applies one set of parameters; each method is one step of the schedule."""

    def __init__(
        self, schedule: Any, task: Task, nest: Tiled, target: Target, parameters: Parameters
    ) -> None:
        self.sch = schedule
        self.task = task
        self.nest = nest
        self.lanes = nest.lanes(target)
        self.p = parameters
        self.rows = int(parameters["rows"])
        self.vectors = int(parameters["vectors"])
        self.width = self.vectors * self.lanes

    @property
    def whole(self) -> bool:
        """Whether the anchor computes whole vectors, whatever is read of the last."""
        return self.nest.cropped

    def run(self) -> None:
        sch, nest = self.sch, self.nest
        apart = self.p.get("epilogue") == "chunk"
        names = [block.name for block in self.task.workload.blocks]
        blocks = sch.get_child_blocks(sch.get_sblock("root"))
        anchor = blocks[nest.anchor]
        keep = {nest.anchor, len(names) - 1}
        padding = None
        gemm = self.p.get("algorithm") == "gemm"
        if nest.padding is not None and not gemm and self.p["padding"] in ("band", "whole"):
            keep.add(nest.padding)
            padding = blocks[nest.padding]
        for index in range(len(names)):
            if index not in keep:
                sch.compute_inline(blocks[index])
        if gemm:
            padding = sch.reindex(anchor, ("read", nest.gathered))
        packing = self._pack(anchor)
        if nest.anchor == len(names) - 1:
            # The accumulators live in registers, so something else must write the result.
            output = sch.cache_write(anchor, 0, "global" if apart else "local")
        else:
            output = blocks[-1]
            if not apart:
                sch.set_scope(anchor, 0, "local")
        if nest.blocked:
            self._channels_last(anchor, output)
        self._flatten(anchor, output)
        if self.whole:
            self._whole_vectors(anchor)
        if apart:
            chunk, inner = self._tile_apart(anchor, output)
        else:
            chunk, inner = self._tile_output(output)
        self.chunk = chunk
        sch.compute_at(anchor, inner, preserve_unit_loops=True)
        self._tile_anchor(anchor)
        if padding is not None:
            self._pad(padding, chunk)
        if packing is not None:
            self._stage(packing)
        self._finish()

    def _finish(self) -> None:
        """What has to come last."""

    def _pack(self, anchor: Any) -> Any:
        """Lay the weights out as [columns / width][reduction][width]."""
        nest = self.nest
        position = nest.packed if nest.packed is not None else nest.staged
        if position is None:
            return None
        read = nest.block.reads[position]
        if nest.packed is not None and read.dims[-1] == (nest.column,) and len(read.dims) < 2:
            return None
        cached = self.sch.cache_read(anchor, position, "global")
        column = next(i for i, dim in enumerate(read.dims) if dim == (nest.column,))
        dims = len(read.dims)
        batch = [i for i, dim in enumerate(read.dims) if dim and dim[0] in nest.outer]
        depth = [axis for axis in nest.reduced if (axis,) in read.dims]
        order = batch + [read.dims.index((axis,)) for axis in depth]
        order += [i for i in range(dims) if i not in order and i != column]

        def packed(*index: Any) -> list[Any]:
            head = [index[i] for i in order[: len(batch)]]
            rest = [index[i] for i in order[len(batch) :]]
            return self._layout(head, index[column], rest, len(depth) - 1)

        uneven = nest.columns % self.width != 0
        self.sch.transform_layout(
            anchor,
            ("read", position),
            index_map(self.sch, packed, dims),
            pad_value=self._zero() if uneven else None,
        )
        if nest.packed is not None:
            self.sch.annotate(cached, "meta_schedule.layout_rewrite_preproc", True)
            return None
        return cached

    def _layout(self, head: list[Any], column: Any, rest: list[Any], last: int) -> list[Any]:
        """Where an element of the weights is: of ``head``, ``column`` and the ``rest``.

        The innermost axis of the reduction is number ``last`` of the rest.
        """
        return [*head, column // self.width, *rest, column % self.width]

    def _zero(self) -> Any:
        """What columns are filled up with."""
        return 0.0

    def _channels_last(self, anchor: Any, output: Any) -> None:
        """Make one axis of the blocks of channels and the channels in them, in both blocks.

        The accumulator is channels-last, too; only what is read and written in memory is not.
        """
        sch, block = self.sch, self.nest.blocked
        depth = len(self.nest.reduced)

        def merged(n: Any, o: Any, h: Any, w: Any, c: Any, *reduced: Any) -> list[Any]:
            return [n, h, w, o * block + c, *reduced]

        sch.transform_layout(anchor, ("write", 0), index_map(sch, merged, 5))
        sch.transform_block_layout(anchor, index_map(sch, merged, 5 + depth))
        sch.transform_block_layout(output, index_map(sch, merged, 5))

    def _flatten(self, anchor: Any, output: Any) -> None:
        """Make the tile axes one axis, in the accumulator and in both blocks."""
        nest = self.nest
        if len(nest.tile) < 2:
            return
        sch = self.sch
        extents = [axis.extent for axis in nest.block.axes]
        order = [dim[0] for dim in nest.block.writes[0].dims]
        where = [i for i, axis in enumerate(order) if axis in nest.tile]

        def merged(index: tuple[Any, ...]) -> list[Any]:
            value: Any = 0
            for i in where:
                value = value * extents[order[i]] + index[i]
            head = [index[i] for i in range(where[0])]
            return [*head, value, *index[where[-1] + 1 :]]

        def block_map(axes: list[int]) -> Any:
            """The same for iteration variables, which the anchor has in its own order."""

            def mapping(*index: Any) -> list[Any]:
                at = dict(zip(axes, index, strict=True))
                done = merged(tuple(at[axis] for axis in order))
                return [*done, *[at[axis] for axis in axes if axis not in order]]

            return index_map(self.sch, mapping, len(axes))

        flat = index_map(sch, lambda *i: merged(i), len(order))
        sch.transform_layout(anchor, ("write", 0), flat)
        sch.transform_block_layout(anchor, block_map(list(range(len(extents)))))
        sch.transform_block_layout(output, block_map(order))

    def _whole_vectors(self, anchor: Any) -> None:
        """Give the anchor's columns two axes, vectors and their lanes.

        Whoever reads a part of a vector then needs all of its lanes, so that the anchor has no tail
        where the output has one.
        """
        sch = self.sch
        dims = len(self.nest.outer) + bool(self.nest.tile) + 1
        loops = dims + len(self.nest.reduced)

        def split(*index: Any) -> list[Any]:
            head, column, rest = index[: dims - 1], index[dims - 1], index[dims:]
            return [*head, column // self.lanes, column % self.lanes, *rest]

        sch.transform_block_layout(anchor, index_map(self.sch, split, loops))
        sch.transform_layout(anchor, ("write", 0), index_map(self.sch, split, dims))

    def _tile_output(self, output: Any) -> tuple[Any, Any]:
        """Tile the output; returns the loop of one chunk and the loop of one register tile."""
        sch, nest, p = self.sch, self.nest, self.p
        parallel, rest, row, column = self._banded(output)
        tile: list[Any] = []
        uneven: list[Any] = []
        if row is not None:
            tiles = ceil(nest.rows / self.rows)
            chunk = min(int(p["row_tiles"]), tiles)
            ro, ri, rr = sch.split(row, [None, chunk, self.rows], preserve_unit_iters=True)
            parallel.append(ro)
            rest.append(ri)
            tile.append(rr)
            if nest.rows % (chunk * self.rows):
                uneven.append(ri)
        tiles = ceil(nest.columns / self.width)
        chunk = min(int(p["column_tiles"]), tiles)
        # A single tile is stored as one long vector, whatever its width.
        single = nest.cropped and tiles == 1
        stored = stored_vector(nest.kept, self.lanes)
        width = [nest.kept] if single else [self.width // stored, stored]
        co, ci, *lanes = sch.split(column, [None, chunk, *width], preserve_unit_iters=True)
        if nest.kept % (chunk * self.width) and not single:
            uneven.append(ci)
        parallel = self._ordered(parallel, co)
        inner = self._tiles_in_order(ci, rest)
        tile += lanes
        sch.reorder(*parallel, *inner, *tile)
        shared = self._shared(parallel)
        if uneven:
            cut_tails(sch, shared, *uneven)
        if self.p.get("padding") == "border":
            # What reads beyond the image are the first and last turns of these loops.
            cut_tails(sch, *rest)
        in_registers(sch, tile)
        return shared, inner[-1]

    def _tile_apart(self, anchor: Any, output: Any) -> tuple[Any, Any]:
        """Tile the products of a chunk, and let what follows walk the chunk row by row.

        What the later blocks read besides (a residual) then comes in the order of memory, which the
        hardware fetches ahead; tile by tile it would be waited for.
        """
        sch, p = self.sch, self.p
        tiled = sch.cache_write(anchor, 0, "local")
        rows, columns = self.rows * int(p["row_tiles"]), self.width * int(p["column_tiles"])
        parallel, inner, row, column = self._banded(output)
        if row is not None:
            ro, ri = sch.split(row, [None, rows], preserve_unit_iters=True)
            parallel.append(ro)
            inner.append(ri)
        co, ci, cl = sch.split(
            column, [None, columns // self.lanes, self.lanes], preserve_unit_iters=True
        )
        parallel = self._ordered(parallel, co)
        sch.reorder(*parallel, *inner, ci, cl)
        chunk = self._shared(parallel)
        sch.vectorize(cl)

        sch.compute_at(tiled, chunk, preserve_unit_loops=True)
        *rest, column = sch.get_loops(tiled)[1:]
        tile: list[Any] = []
        if row is not None:
            ri, rr = sch.split(rest.pop(), [None, self.rows], preserve_unit_iters=True)
            rest.append(ri)
            tile.append(rr)
        ci, *lanes = sch.split(column, [None, self.vectors, self.lanes], preserve_unit_iters=True)
        inner = self._tiles_in_order(ci, rest)
        tile += lanes
        sch.reorder(*inner, *tile)
        in_registers(sch, tile)
        return chunk, inner[-1]

    def _banded(self, output: Any) -> tuple[list[Any], list[Any], Any, Any]:
        """The output's loops: those to share among threads, those of a band, row and column.

        There is no row (None) where nothing is left to tile.
        """
        *outer, column = self.sch.get_loops(output)
        row = outer.pop() if self.nest.tile else None
        if not outer:
            return [], [], row, column
        *first, last = outer
        a, b = self.sch.split(last, [None, int(self.p.get("band", 1))])
        return [*first, a], [b], row, column

    def _ordered(self, rows: list[Any], columns: Any) -> list[Any]:
        """The loops over chunks, outermost first."""
        return [*rows, columns] if self.p["grid"] == "rows" else [columns, *rows]

    def _tiles_in_order(self, columns: Any, rows: list[Any]) -> list[Any]:
        """The loops over the tiles of a chunk, outermost first."""
        return [columns, *rows] if self.p["order"] == "rows" else [*rows, columns]

    def _shared(self, loops: list[Any]) -> Any:
        """The loops over chunks as one, among threads if that is chosen."""
        loop = fused(self.sch, loops)
        if self.p["parallel"]:
            self.sch.parallel(loop)
        return loop

    def _tile_anchor(self, anchor: Any) -> None:
        """Order the anchor's own loops: reduction outside, register tile inside."""
        sch, nest = self.sch, self.nest
        loops = sch.get_loops(anchor)
        depth = len(nest.reduced)
        reduced = list(loops[-depth:])
        own = len(nest.outer) + bool(nest.tile) + 1 + self.whole
        spatial = list(loops[-depth - own : -depth])
        columns = spatial[-1 - self.whole :]
        del spatial[-1 - self.whole :]
        if not self.whole:
            columns = sch.split(columns[0], [self.vectors, self.lanes], preserve_unit_iters=True)
        self._reduce(anchor, reduced[:-1], reduced[-1], spatial, list(columns))

    def _reduce(
        self, anchor: Any, outer: list[Any], last: Any, spatial: list[Any], columns: list[Any]
    ) -> None:
        """Order the loops of the reduction, ``last`` its innermost, around those of the tile."""
        sch = self.sch
        last, step = sch.split(last, [None, int(self.p["unroll"])], preserve_unit_iters=True)
        outer = [*outer, last]
        if self.p.get("unroll_window", False):
            for loop in outer:
                sch.unroll(loop)
        reduced_in_registers(sch, anchor, outer, [step], [*spatial, *columns])

    def _pad(self, padding: Any, chunk: Any) -> None:
        """Pad, or gather, inside the parallel chunk, or once for the whole input."""
        sch = self.sch
        if self.p.get("padding", "band") == "band":
            sch.compute_at(padding, chunk, preserve_unit_loops=True)
            loops = sch.get_loops(padding)
        else:
            loops = list(sch.get_loops(padding))
            sch.parallel(sch.fuse(*loops[:-2]))
            loops = list(sch.get_loops(padding))
        self._vectorize_last(loops[-1])

    def _stage(self, staged: Any) -> None:
        """Copy a variable operand into its packed layout, before the tiles read it."""
        sch = self.sch
        loops = list(sch.get_loops(staged))
        if len(loops) > 2:
            self._shared(loops[:-2])
        self._vectorize_last(sch.get_loops(staged)[-1])

    def _vectorize_last(self, loop: Any) -> None:
        from tvm import tirx

        extent = self.sch.get(loop).extent
        if not isinstance(extent, tirx.IntImm):
            return  # the channels of several groups: how many depends on where the chunk is
        extent = int(extent)
        if extent % self.lanes == 0 and extent > self.lanes:
            _, inner = self.sch.split(loop, [None, self.lanes])
            self.sch.vectorize(inner)
        elif extent <= 64:
            self.sch.vectorize(loop)
