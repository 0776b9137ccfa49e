"""Which blocks of a function become loop nests of their own, and which rows they share.

Read from the description of the workload alone. A function such as softmax or a norm is a chain
of stages over rows: all stages of one row are computed together while it is in the cache, and
the rows are shared among threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from search_spaces.task import Block, Workload

_COSTLY = frozenset({"tirx.exp", "tirx.erf", "tirx.tanh", "tirx.sigmoid", "tirx.pow", "tirx.log"})

LONGEST = 400
"""Operators of an expression that blocks are inlined into; an exponential of ours has 96, and
repeats what it reads 16 times."""


_USES = {"Select": 3, "tirx.isnan": 10}
"""How often a block with these reads the same value, or is as bad as that: isfinite asks for it
several times, and what it guards is that value again, which keeps TVM's simplifier busy."""


@dataclass(frozen=True)
class Stages:
    """``kept`` are the blocks (by index) with loops of their own, in order, the last the output.

    The others are inlined into their consumers. ``rows`` is how many leading dimensions of the
    output every kept block shares, so that they can all be computed inside one loop over those.
    """

    kept: tuple[int, ...]
    rows: int
    output: int

    def inlined(self, workload: Workload) -> list[int]:
        """The blocks without loops of their own."""
        return [i for i in range(len(workload.blocks)) if i not in self.kept]


@lru_cache(maxsize=4096)
def stages(workload: Workload) -> Stages | None:
    """The stages of ``workload``; None where blocks write several buffers or arguments."""
    blocks = workload.blocks
    if not blocks or workload.outputs != 1:
        return None
    if any(len(block.writes) != 1 for block in blocks):
        return None
    output = len(blocks) - 1
    if blocks[output].writes[0].buffer < 0:
        return None
    kept = [i for i in range(len(blocks)) if i == output or _keeps(workload, i)]
    kept = sorted({*kept, *_too_long(workload, kept)})
    return Stages(tuple(kept), _rows(workload, kept, output), output)


def _too_long(workload: Workload, kept: list[int]) -> list[int]:
    """Blocks to keep besides ``kept``, lest an expression grows beyond ``LONGEST`` operators.

    A value that is read several times is repeated each time, and again where that is: a few
    activations between quantised numbers keep TVM's simplifier busy for hours.
    """
    lengths: dict[int, int] = {}  # of what is inlined, by buffer
    writers: dict[int, int] = {}
    more: list[int] = []
    for index, block in enumerate(workload.blocks):
        own = sum(count for _, count in block.ops)
        uses = max(own // 6, *(_USES.get(name, 1) for name, _ in block.ops), 1)
        read = {read.buffer for read in block.reads if read.buffer in lengths}
        length = own + uses * sum(lengths[buffer] for buffer in read)
        if length > LONGEST:
            cut = [buffer for buffer in read if lengths[buffer] > 2]
            more += [writers[buffer] for buffer in cut]
            for buffer in cut:
                del lengths[buffer]
            length = own + uses * sum(lengths.get(buffer, 0) for buffer in read)
        if index not in kept:
            lengths[block.writes[0].buffer] = length
            writers[block.writes[0].buffer] = index
    return more


def extent(block: Block, reduced: bool | None = None) -> int:
    """Iterations of ``block``: all, or those of its reduced or spatial axes alone."""
    return prod(a.extent for a in block.axes if reduced is None or a.reduced == reduced)


def consumers(workload: Workload, index: int) -> list[int]:
    """Blocks that read what block ``index`` writes."""
    buffer = workload.blocks[index].writes[0].buffer
    return [
        i
        for i, block in enumerate(workload.blocks)
        if i != index and any(read.buffer == buffer for read in block.reads)
    ]


def _keeps(workload: Workload, index: int) -> bool:
    """Whether inlining would repeat work: reductions, broadcast or shared costly blocks."""
    block = workload.blocks[index]
    if block.reduction or not block.writes[0].plain:
        return True
    readers = consumers(workload, index)
    costly = any(name in _COSTLY for name, _ in block.ops)
    costly = costly or _long(block)
    if not costly:
        return False
    if _long(block) and _read_by_long(workload, index):
        return True  # a polynomial in a polynomial: each use would repeat all of it
    return len(readers) > 1 or any(
        extent(workload.blocks[reader]) > extent(block) for reader in readers
    )


def _long(block: Block) -> bool:
    return sum(count for _, count in block.ops) > 8


def _read_by_long(workload: Workload, index: int) -> bool:
    return any(
        _long(workload.blocks[reader]) or _read_by_long(workload, reader)
        for reader in consumers(workload, index)
    )


def _rows(workload: Workload, kept: list[int], output: int) -> int:
    """How many leading output dimensions all kept blocks share."""
    final = workload.blocks[output]
    order = [dim[0] if len(dim) == 1 else -1 for dim in final.writes[0].dims]
    count = 0
    for position, axis in enumerate(order):
        if axis != position or final.axes[axis].reduced:
            break
        if all(_follows(workload, index, position, final.axes[axis].extent) for index in kept):
            count += 1
        else:
            break
    # The innermost dimension is left to vectors.
    return max(min(count, len(order) - 1), 0)


def _follows(workload: Workload, index: int, position: int, rows: int) -> bool:
    """Whether dimension ``position`` of what block ``index`` writes is walked by that row axis."""
    block = workload.blocks[index]
    write = block.writes[0]
    if len(write.dims) <= position or len(write.dims[position]) != 1:
        return False
    axis = write.dims[position][0]
    if block.axes[axis].reduced or block.axes[axis].extent != rows:
        return False
    buffers = {workload.blocks[i].writes[0].buffer for i in range(len(workload.blocks))}
    for read in block.reads:
        # An intermediate must be read in the same row, or it is needed before its row is done.
        inner = read.buffer in buffers and read.buffer != write.buffer
        if inner and (len(read.dims) <= position or read.dims[position] != (axis,)):
            return False
    return True
