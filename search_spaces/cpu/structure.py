"""What kind of loop nest a fused function is, read from its description alone (no compiler)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from search_spaces.cpu.blocked import channels_last
from search_spaces.task import Access, Block, Target, Workload

LEAST_VECTOR = 4
"""Elements that are worth a vector."""


@dataclass(frozen=True)
class Tiled:
    """A reduction whose result has a contiguous axis to vectorise over.

    Axis numbers are positions in ``anchor.axes``. ``column`` is the vectorised axis, ``tile`` the
    spatial axes flattened into the rows of the register tile, ``outer`` the other spatial axes.
    ``packed`` is the position, among the anchor's reads, of the constant operand that is laid out
    anew, or None. ``staged`` is the same for a variable operand that is copied into that layout at
    run time. ``padding`` is the index of the block that pads the data, or None. ``kept`` is how
    many columns later blocks read: fewer than there are where constant weights were filled up to
    whole vectors, so that no step of the reduction has a tail. ``group`` is how many columns next
    to each other read the same data; 0 where all do. ``blocked`` is how many channels lie next to
    each other where images are in blocks of them, 0 where all do; axis numbers and ``block`` are
    then those of channels-last images. ``gathered`` is the position of the data whose elements
    many steps of a window read, which may be copied so that each row of the product has its own;
    None where there is no window.
    """

    anchor: int
    block: Block
    column: int
    tile: tuple[int, ...]
    outer: tuple[int, ...]
    reduced: tuple[int, ...]
    packed: int | None
    staged: int | None
    padding: int | None
    broadcast: bool
    kept: int
    group: int = 0
    blocked: int = 0
    gathered: int | None = None

    def extent(self, axes: tuple[int, ...]) -> int:
        """Product of the extents of ``axes``."""
        return prod(self.block.axes[axis].extent for axis in axes)

    @property
    def rows(self) -> int:
        """Rows of the flattened tile axis."""
        return self.extent(self.tile)

    @property
    def columns(self) -> int:
        """Columns: extent of the vectorised axis."""
        return self.block.axes[self.column].extent

    @property
    def cropped(self) -> bool:
        """Whether the last vector is computed in full, and read in part."""
        return self.kept < self.columns

    def registers(self, target: Target) -> int:
        """Vector registers that one vector of columns takes."""
        return -(-self.lanes(target) // target.lanes())

    def lanes(self, target: Target) -> int:
        """Elements of one vector of columns: the widest that leaves no tail, if there is one."""
        if self.group:
            return even_part(self.group, target.lanes())
        if self.blocked:
            return even_part(self.blocked, target.lanes())
        best = target.vector_of(self.columns)
        if self.columns % best == 0:
            return best
        even = even_part(self.columns, best)
        if even >= LEAST_VECTOR:
            return even
        # LLVM splits an odd vector into whole ones and a rest, without conditions.
        return self.columns if self.columns <= 4 * best else best

    def divided(self, vectors: int, target: Target) -> bool:
        """Whether panels of ``vectors`` each read the same data: they must not cross groups."""
        return not self.group or self.group // self.lanes(target) % vectors == 0

    @property
    def depth(self) -> int:
        """Iterations of the reduction."""
        return self.extent(self.reduced)


def even_part(extent: int, most: int) -> int:
    """The largest power of two up to ``most`` (one itself) that divides ``extent``."""
    return min(extent & -extent, most)


def stored_vector(extent: int, lanes: int) -> int:
    """Elements of the vectors that ``extent`` is stored in: such as leave no tail, if any do."""
    even = even_part(extent, lanes)
    return even if even >= LEAST_VECTOR else lanes


@lru_cache(maxsize=4096)
def tiled(workload: Workload) -> Tiled | None:
    """Describe ``workload`` as one tiled reduction with elementwise blocks around it, or None."""
    reductions = [i for i, block in enumerate(workload.blocks) if block.reduction]
    if len(reductions) != 1 or workload.outputs != 1:
        return None
    anchor = reductions[0]
    blocked = 0
    if workload.blocks[anchor].name == "blocked_conv":
        blocked = workload.blocks[anchor].axes[4].extent
        workload = channels_last(workload, anchor)
    block = workload.blocks[anchor]
    if len(block.writes) != 1 or not block.writes[0].plain:
        return None
    spatial = [i for i, axis in enumerate(block.axes) if not axis.reduced]
    reduced = tuple(i for i, axis in enumerate(block.axes) if axis.reduced)
    order = [dim[0] for dim in block.writes[0].dims if dim]
    if not order or any(block.axes[a].extent > 1 and a not in order for a in spatial):
        return None
    column = order[-1]
    kept = _kept(block, workload.blocks[anchor + 1 :])
    if kept is None or (kept < block.axes[column].extent and column != spatial[-1]):
        return None
    if block.axes[column].extent < LEAST_VECTOR:
        return None
    packed, staged = None, None
    broadcast = False
    group, gathered = 0, None
    for position, read in enumerate(block.reads):
        uses = column in read.axes
        contiguous = bool(read.dims) and read.dims[-1] == (column,)
        deep = any(axis in read.axes for axis in reduced)
        constant = read.buffer in workload.constants
        if block.name == "grouped_conv" and uses and not read.plain:
            group = _group(workload, anchor, read, column)
            if even_part(group, LEAST_VECTOR) < LEAST_VECTOR:
                return None
            broadcast = True
            continue
        if uses and constant and deep and read.plain and packed is None:
            packed = position
        elif uses and not contiguous:
            if not (read.plain and read.buffer >= 0) or staged is not None:
                return None
            staged = position
        broadcast = broadcast or not uses
        if not uses and deep and not read.plain:
            gathered = position
    rows = [axis for axis in order[:-1]]
    tile = _flattenable(block, rows)
    outer = tuple(axis for axis in rows if axis not in tile)
    padding = None
    read_buffers = {read.buffer for read in block.reads}
    for index, before in enumerate(workload.blocks[:anchor]):
        if "pad" in before.name and any(w.buffer in read_buffers for w in before.writes):
            padding = index
    return Tiled(
        anchor, block, column, tile, outer, reduced, packed, staged, padding, broadcast, kept,
        group, blocked, gathered,
    )  # fmt: skip


def _group(workload: Workload, anchor: int, read: Access, column: int) -> int:
    """Columns that read the same channels of the data, in a grouped convolution; 0: cannot tell."""
    block = workload.blocks[anchor]
    if not read.dims or column not in read.dims[-1] or any(column in d for d in read.dims[:-1]):
        return 0
    inputs = prod(block.axes[axis].extent for axis in read.dims[-1] if axis != column)
    if read.buffer >= 0:
        channels = workload.arguments[read.buffer].shape[-1]
    else:
        (source,) = [b for b in workload.blocks[:anchor] if b.writes[0].buffer == read.buffer]
        channels = source.axes[-1].extent
    return block.axes[column].extent * inputs // channels


def _kept(block: Block, following: tuple[Block, ...]) -> int | None:
    """Columns of the elementwise blocks after the anchor, or None where they are something else.

    Each of them runs over the anchor's spatial shape, or all over its first columns only.
    """
    *rows, columns = [axis.extent for axis in block.axes if not axis.reduced]
    kept = {columns}
    for index, later in enumerate(following):
        *own, last = [axis.extent for axis in later.axes] or [0]
        if own != rows or last > columns or any(axis.reduced for axis in later.axes):
            return None
        if any(w.dims != tuple((i,) for i in range(len(w.dims))) for w in later.writes):
            return None
        if index == 0:
            kept = {last}
        kept.add(last)
    return kept.pop() if len(kept) == 1 else None


def _flattenable(block: Block, rows: list[int]) -> tuple[int, ...]:
    """The longest run of rows, ending at the innermost, that every operand walks contiguously."""
    if not rows:
        return ()
    for start in range(len(rows)):
        group = rows[start:]
        if all(_walks(read, group) for read in block.reads):
            return tuple(group)
    return (rows[-1],)


def _walks(read: Access, group: list[int]) -> bool:
    """Whether ``read`` uses the axes of ``group`` as consecutive dimensions, or not at all."""
    used = [axis for axis in group if axis in read.axes]
    if not used:
        return True
    dims = [dim for dim in read.dims]
    wanted = [(axis,) for axis in group]
    width = len(wanted)
    return read.plain and any(
        list(dims[i : i + width]) == wanted for i in range(len(dims) - width + 1)
    )


def reads_besides(workload: Workload, nest: Tiled) -> bool:
    """Whether blocks after the anchor read another variable of the size of the result."""
    arguments = workload.arguments
    size = prod(arguments[-1].shape)
    return any(
        read.buffer >= 0
        and read.buffer not in workload.constants
        and prod(arguments[read.buffer].shape) == size
        for block in workload.blocks[nest.anchor + 1 :]
        for read in block.reads
    )
