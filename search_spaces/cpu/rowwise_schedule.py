"""How the decisions of ``cpu.rowwise`` become a schedule, one block after the other."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

from search_spaces.cpu.loops import cut_tails, fused
from search_spaces.cpu.stages import Stages, extent
from search_spaces.cpu.structure import LEAST_VECTOR, even_part
from search_spaces.task import Block, Parameters, Target, Task

MAX_PIECES = 8
"""Pieces of a concatenation that are unrolled."""

TILE, LINES = 16, 8
"""A tile of a transposition: one cache line along the axis that is read in order, and as few lines
as stay in the first-level cache even where all of them fall into one of its sets."""

MAX_ODD = 4
"""Vector registers that an odd length may take as a single vector."""

PARALLEL_ABOVE = 24_000
"""Block iterations above which starting the threads is worth it, by default."""


class RowwiseSchedule:
    """Applies one set of parameters."""

    def __init__(
        self, schedule: Any, task: Task, found: Stages, target: Target, p: Parameters
    ) -> None:
        self.sch = schedule
        self.blocks = task.workload.blocks
        self.workload = task.workload
        self.found = found
        self.inlined = found.inlined(task.workload)
        self.target = target
        self.lanes = target.lanes()
        self.width = self.lanes * int(p["vectors"])
        self.parallel = bool(p["parallel"])
        self.rows = int(p.get("rows", 0))
        self.partial = bool(p.get("partial", False))

    def run(self) -> None:
        sch = self.sch
        handles = sch.get_child_blocks(sch.get_sblock("root"))
        for index in self.inlined:
            sch.compute_inline(handles[index])
        parts: dict[int, list[Any]] = {}
        for index in self.found.kept:
            if self.partial and foldable(self.blocks[index], self.target):
                parts[index] = self._split_reduction(handles[index], self.blocks[index])
        output = handles[self.found.output]
        shared = self.rows > 0 and len(self.found.kept) > 1
        if shared:
            loops = sch.get_loops(output)
            row = fused(sch, loops[: self.rows])
            if self.parallel:
                sch.parallel(row)
            for index in reversed(self.found.kept[:-1]):
                sch.compute_at(handles[index], row, preserve_unit_loops=True)
                for part in reversed(parts.get(index, ())):
                    sch.compute_at(part, row, preserve_unit_loops=True)
        for index in self.found.kept:
            block = self.blocks[index]
            if index in parts:
                wide, *halves = parts[index]
                self._lanes(wide, block, at_root=not shared)
                for half in halves:
                    self._half(half)
                self._finish(handles[index])
            elif block.reduction:
                self._reduction(handles[index], block, at_root=not shared)
            else:
                self._elementwise(index, handles[index], at_root=not shared)

    # -- one block at a time

    def _elementwise(self, index: int, handle: Any, at_root: bool) -> None:
        sch = self.sch
        loops = list(sch.get_loops(handle))
        if not at_root:
            if len(loops) > 1:  # the first is that of the rows
                self._vector(index, loops[-1])
            return
        if not loops:
            return
        outer = self._flatten(index, loops)
        if outer is not None and self.parallel:
            sch.parallel(outer)

    def _flatten(self, index: int, loops: list[Any]) -> Any:
        """One loop to share among threads, one vector; returns the former."""
        sch = self.sch
        total = extent(self.blocks[index])
        if len(loops) == 1 or self._walks(index):
            own = self._pieces([axis.extent for axis in self.blocks[index].axes])
            if own:
                head, rest = loops[:-own], loops[-own:]
                outer = fused(sch, head)
                self._vector(index, fused(sch, rest))
                return outer
            whole = fused(sch, loops)
            if total <= self.width:
                sch.vectorize(whole)
                return None
            outer, inner = sch.split(whole, [None, self.width])
            if total % self.width:
                cut_tails(sch, outer)
            self._wide(inner)
            if total // self.width < 2 * self.target.threads:
                return None
            return outer
        *first, innermost = loops
        turned = self._turned(index)
        if turned is not None:
            return self._tiles(self.blocks[index], turned, first, innermost)
        outer = fused(sch, first)
        self._vector(index, innermost)
        return outer

    def _turned(self, index: int) -> int | None:
        """The axis along which a transposition reads memory in order, if it does not write so."""
        block = self.blocks[index]
        last = len(block.axes) - 1
        for read in block.reads:
            if read.plain and read.dims and len(read.dims[-1]) == 1:
                axis = read.dims[-1][0]
                if axis != last and min(block.axes[axis].extent, block.axes[last].extent) >= 8:
                    return axis
        return None

    def _tiles(self, block: Block, turned: int, first: list[Any], innermost: Any) -> Any:
        """Write a tile of few lines at a time, so that the lines that it reads are used up."""
        sch = self.sch
        outside, inside = sch.split(first[turned], [None, TILE])
        piece, lane = sch.split(innermost, [None, LINES])
        others = [loop for axis, loop in enumerate(first) if axis != turned]
        sch.reorder(*others, outside, piece, inside, lane)
        outer = fused(sch, [*others, outside])
        if block.axes[turned].extent % TILE or block.axes[-1].extent % LINES:
            cut_tails(sch, outer, piece)
        sch.vectorize(lane)
        return outer

    def _pieces(self, extents: list[int]) -> int:
        """How many of the last axes make a piece that is walked as a whole; 0: all of them do.

        Where vectors would cross the end of the last axis, TVM does not always see that the data
        goes on behind it.
        """
        if len(extents) < 2 or extents[-1] % self.width == 0:
            return 0
        own = 1
        while own < len(extents) - 1 and prod(extents[-own:]) < 2 * self.lanes:
            own += 1
        enough = prod(extents[:-own]) >= 2 * self.target.threads
        return own if enough and prod(extents[-own:]) >= self.lanes else 0

    def _walks(self, index: int) -> bool:
        """Whether block ``index``, with all that is inlined into it, walks its data in order."""
        block = self.blocks[index]
        if not all(read.plain and _identity(read.dims, block) for read in block.reads):
            return False
        read = {read.buffer for read in block.reads}
        return all(
            self._walks(before)
            for before in self.inlined
            if self.blocks[before].writes[0].buffer in read
        )

    def _vector(self, index: int, loop: Any) -> None:
        """Vectorise ``loop``; a length that is no multiple of the vector makes one long vector.

        LLVM splits that without conditions. Longer ones have their tail in a loop of its own.
        """
        sch = self.sch
        count = int(sch.get(loop).extent)
        step = self._step(index, count)
        if step < count:
            # Pieces that come from different tensors: which one is known for all of a piece.
            piece, loop = sch.split(loop, [None, step])
            if count // step <= MAX_PIECES:
                sch.unroll(piece)
            count = step
            even = even_part(count, self.lanes)
            if MAX_ODD * self.lanes < count and even < self.lanes <= 2 * even:
                # TVM never ends to cut tails of half a vector off several pieces.
                _, inner = sch.split(loop, [None, even])
                sch.vectorize(inner)
                return
        if count == 3:
            return  # colours, for instance: LLVM interleaves pixels better
        odd = count % self.lanes and count <= MAX_ODD * self.lanes
        if odd or count <= self.width:
            sch.vectorize(loop)
            return
        outer, inner = sch.split(loop, [None, self.width])
        if count % self.width:
            cut_tails(sch, outer)
        self._wide(inner)

    def _step(self, index: int, count: int) -> int:
        """The length that all tensors a concatenation is made of are multiples of."""
        block = self.blocks[index]
        conditions = sum(number for name, number in block.ops if "if_then_else" in name)
        parts = [
            self.workload.arguments[read.buffer].shape[-1]
            for read in block.reads
            if read.buffer >= 0 and not read.plain and read.dims
        ]
        if not conditions or len(parts) < 2:
            return count
        step = gcd(count, *parts)
        return step if step >= LEAST_VECTOR else count

    def _wide(self, loop: Any) -> None:
        if self.width == self.lanes:
            self.sch.vectorize(loop)
            return
        several, one = self.sch.split(loop, [None, self.lanes])
        self.sch.unroll(several)
        self.sch.vectorize(one)

    def _reduction(self, handle: Any, block: Block, at_root: bool) -> None:
        """A reduction without partial results: vectors along the written axis where it has one."""
        sch = self.sch
        loops = list(sch.get_loops(handle))
        own = loops[-len(block.axes) :]
        spatial = [loop for loop, axis in zip(own, block.axes, strict=True) if not axis.reduced]
        reduced = [loop for loop, axis in zip(own, block.axes, strict=True) if axis.reduced]
        found = column(block)
        sch.reorder(*spatial, *reduced)
        if at_root and self.parallel and len(spatial) > 1 and extent(block) > PARALLEL_ABOVE:
            sch.parallel(fused(sch, spatial[:-1]))
        if found is None:
            return
        innermost = spatial[-1]
        count = int(sch.get(innermost).extent)
        if count >= self.lanes and count % self.lanes == 0:
            _, vector = sch.split(innermost, [None, self.lanes])
            sch.reorder(*reduced, vector)
            sch.vectorize(vector)
            sch.decompose_reduction(handle, reduced[0])

    def _split_reduction(self, handle: Any, block: Block) -> list[Any]:
        """Partial results, one for each vector lane, along the innermost reduced axis.

        The blocks that make them, in order.
        """
        sch = self.sch
        loops = sch.get_loops(handle)
        position = max(i for i, axis in enumerate(block.axes) if axis.reduced)
        factor = _fold(block.axes[position].extent, self.target)
        _, inner = sch.split(loops[position], [None, factor])
        spatial = sum(1 for axis in block.axes if not axis.reduced)
        place = spatial if block.writes[0].dims else 0
        parts = [sch.rfactor(inner, factor_axis=place)]
        if factor % (2 * LEAST_VECTOR) == 0:
            # Lanes are added up a short vector at a time first: one by one, each waits for the sum.
            _, inner = sch.split(sch.get_loops(handle)[-1], [None, LEAST_VECTOR])
            parts.append(sch.rfactor(inner, factor_axis=place))
        return parts

    def _half(self, partial: Any) -> None:
        """Add the lanes of a wide vector up to those of a short one."""
        sch = self.sch
        *_, steps, lane = sch.get_loops(partial)
        sch.vectorize(lane)
        sch.unroll(steps)

    def _lanes(self, partial: Any, original: Block, at_root: bool) -> None:
        """Vectorise the partial results of a split reduction."""
        sch = self.sch
        block = sch.get(partial)
        factor = _fold(original.axes[-1].extent, self.target)
        loops = list(sch.get_loops(partial))[-len(block.iter_vars) :]
        kinds = [int(var.iter_type) for var in block.iter_vars]
        extents = [int(var.dom.extent) for var in block.iter_vars]
        if at_root:
            # rfactor leaves the loops as they were (the lanes innermost), not in its own order.
            kinds = [0] * (len(kinds) - kinds.count(2) - 1) + [2] * kinds.count(2) + [0]
            lane = len(kinds) - 1
        else:
            lane = max(i for i, k in enumerate(kinds) if k == 0 and extents[i] == factor)
        reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 2]
        others = [loops[i] for i, kind in enumerate(kinds) if kind == 0 and i != lane]
        sch.reorder(*others, *reduced, loops[lane])
        if at_root and self.parallel and others:
            sch.parallel(fused(sch, others))
        sch.vectorize(loops[lane])
        if reduced:
            sch.decompose_reduction(partial, reduced[0])

    def _finish(self, handle: Any) -> None:
        """Unroll the few steps that add the lanes up."""
        loop = self.sch.get_loops(handle)[-1]
        if int(self.sch.get(loop).extent) <= self.lanes:
            self.sch.unroll(loop)


def _fold(length: int, target: Target) -> int:
    """How many partial results a reduction of ``length`` splits into; 1 where it does not.

    It must divide: TVM's compute_at forgets the condition that would guard an incomplete vector.
    """
    lanes = target.lanes()
    if length < 2 * lanes:
        return 1
    return max(
        (f for f in range(1, lanes + 1) if length % f == 0 and (f == lanes or f > 3)), default=1
    )


def column(block: Block) -> int | None:
    """The written axis that every operand walks contiguously or not at all."""
    order = [dim for dim in block.writes[0].dims if dim]
    if not order or len(order[-1]) != 1:
        return None
    axis = order[-1][0]
    spatial = [i for i, a in enumerate(block.axes) if not a.reduced]
    if not spatial or spatial[-1] != axis:
        return None
    for read in block.reads:
        if axis in read.axes and read.dims[-1] != (axis,):
            return None
    return axis


def foldable(block: Block, target: Target) -> bool:
    """Whether partial results for each lane help: a long reduction along contiguous data."""
    if not block.reduction or len(block.writes) != 1:
        return False
    position = len(block.axes) - 1
    spatial = sum(1 for axis in block.axes if not axis.reduced)
    if any(axis.reduced for axis in block.axes[:spatial]):
        return False
    if _fold(block.axes[position].extent, target) == 1:
        return False
    reads = [read for read in block.reads if position in read.axes]
    return bool(reads) and all(read.dims[-1] == (position,) for read in reads)


def _identity(dims: tuple[tuple[int, ...], ...], block: Block) -> bool:
    """Whether a read walks its buffer exactly as the block walks its axes."""
    wanted = tuple((i,) for i in range(len(block.axes)))
    return dims == wanted or not any(dims)
