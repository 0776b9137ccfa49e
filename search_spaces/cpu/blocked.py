"""A convolution of images in blocks of channels, described as if their channels came last."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.task import Access, Axis, Block, Workload

_PLACES = {0: 0, 1: 3, 2: 1, 3: 2, 4: 3}
"""Where the axes of a blocked image, [N, C / block, H, W, block], are in one of channels last."""


def channels_last(workload: Workload, anchor: int) -> Workload:
    """``workload`` with the channels of the blocks from ``anchor`` on as one axis, the last one.

    What pads the image before stays as it is: it is copied, whatever its layout.
    """
    blocks = [*workload.blocks[:anchor], *map(_described, workload.blocks[anchor:])]
    return replace(workload, blocks=tuple(blocks))


def _described(block: Block) -> Block:
    if [axis.reduced for axis in block.axes[:5]] != [False] * 5:
        return block
    batch, outer, height, width, inner, *reduced = block.axes
    channels = Axis(outer.extent * inner.extent, False)
    return replace(
        block,
        axes=(batch, height, width, channels, *reduced),
        reads=tuple(map(_access, block.reads)),
        writes=tuple(map(_access, block.writes)),
    )


def _access(access: Access) -> Access:
    dims = []
    whole = False
    for dim in access.dims:
        if dim == (1,):
            continue  # of the two axes that channels are, one is left
        whole = whole or {1, 4} <= set(dim)
        dims.append(tuple(sorted({_PLACES.get(axis, axis - 1) for axis in dim})))
    single = all(len(dim) < 2 for dim in dims)
    return replace(access, dims=tuple(dims), plain=access.plain or (whole and single))
