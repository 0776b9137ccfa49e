"""A depthwise and a pointwise convolution as one kernel, a band of the image at a time.

What ``graph.separable`` makes. The depthwise result of a chunk of pixels, all channels of it, is
computed into the cache, and multiplied by the pointwise weights while it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.registers import check_accumulators, divisors, register_tile
from search_spaces.cpu.separable_schedule import SeparableSchedule
from search_spaces.cpu.structure import LEAST_VECTOR, even_part
from search_spaces.task import Block, Parameters, ParameterValue, Target, Task, Workload

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_ROWS = 14
MAX_VECTORS = 6
MAX_BAND = 32


@dataclass(frozen=True)
class Separable:
    """Blocks by index, and sizes.

    ``feed`` is the last block before the pointwise convolution (``depthwise`` itself where nothing
    is between), ``padding`` the one that pads the image, None where there is none. ``height`` and
    ``width`` are of the result.
    """

    depthwise: int
    feed: int
    pointwise: int
    padding: int | None
    batch: int
    height: int
    width: int
    channels: int
    outputs: int
    stride: int


@lru_cache(maxsize=1024)
def separable_of(workload: Workload) -> Separable | None:
    """Read ``workload`` as a depthwise and a pointwise convolution; None for anything else."""
    blocks = workload.blocks
    reductions = [i for i, block in enumerate(blocks) if block.reduction]
    if len(reductions) != 2 or workload.outputs != 1 or any(len(b.writes) != 1 for b in blocks):
        return None
    depthwise, pointwise = reductions
    made = {block.writes[0].buffer: i for i, block in enumerate(blocks)}
    first, second = blocks[depthwise], blocks[pointwise]
    if not _is_depthwise(first) or not _is_pointwise(workload, second):
        return None
    feed = made.get(second.reads[0].buffer)
    if feed is None or not depthwise <= feed < pointwise:
        return None
    for block in (*blocks[depthwise + 1 : pointwise], *blocks[pointwise + 1 :]):
        if len(block.axes) != 4 or block.writes[0].dims != ((0,), (1,), (2,), (3,)):
            return None
    source = made.get(first.reads[0].buffer)
    if source is not None and "pad" not in blocks[source].name:
        return None
    batch, height, width, outputs = [axis.extent for axis in second.axes[:4]]
    channels = second.axes[4].extent
    if channels % LEAST_VECTOR or outputs % LEAST_VECTOR:
        return None
    if source is not None:
        rows = blocks[source].axes[1].extent
    else:
        rows = workload.arguments[first.reads[0].buffer].shape[1]
    return Separable(
        depthwise, feed, pointwise, source, batch, height, width, channels, outputs,
        stride=max(1, rows // height),
    )  # fmt: skip


def _is_depthwise(block: Block) -> bool:
    """[n, h, w, c] from a window of the same channel."""
    kinds = [axis.reduced for axis in block.axes]
    if kinds[:4] != [False] * 4 or not 1 <= len(kinds) - 4 <= 2 or not all(kinds[4:]):
        return False
    if len(block.reads) != 2 or block.writes[0].dims != ((0,), (1,), (2,), (3,)):
        return False
    data, kernel = block.reads
    return data.dims[-1:] == ((3,),) and kernel.dims[-1:] == ((3,),) and len(data.dims) == 4


def _is_pointwise(workload: Workload, block: Block) -> bool:
    kinds = [axis.reduced for axis in block.axes]
    if kinds != [False] * 4 + [True] or len(block.reads) != 2:
        return False
    data, kernel = block.reads
    pixels = all(
        dim in ((i,), ()) for i, dim in enumerate(data.dims[:3]) if block.axes[i].extent > 1
    )
    weights = kernel.buffer in workload.constants and kernel.dims[-2:] == ((4,), (3,))
    return pixels and data.dims[-1] == (4,) and weights and kernel.plain


class SeparableSpace(SearchSpace):
    """The chunk of pixels, and the register tiles of both convolutions.

    A chunk has ``band`` rows of ``tiles`` times ``rows`` pixels.
    """

    name = "cpu.separable"
    version = 1
    priority = 40

    def matches(self, task: Task, target: Target) -> bool:
        return target.kind == "llvm" and separable_of(task.workload) is not None

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        found = _separable(task)
        rows = divisors(found.width, MAX_ROWS)
        options: dict[str, BaseDistribution] = {
            "band": CategoricalDistribution(divisors(found.height, MAX_BAND)),
            "tiles": CategoricalDistribution(divisors(found.width, 64)),
            "rows": CategoricalDistribution(rows),
            "vectors": CategoricalDistribution(_panels(found.outputs, target)),
            "unroll": CategoricalDistribution([u for u in (1, 2, 4, 8) if found.channels % u == 0]),
            "window_rows": CategoricalDistribution(rows),
            "window_vectors": CategoricalDistribution(_panels(found.channels, target)),
            "order": CategoricalDistribution(["rows", "columns"]),
        }
        if found.padding is not None:
            options["padding"] = CategoricalDistribution(["band", "inline"])
        return options

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        found = _separable(task)
        heights, registers = divisors(found.width, MAX_ROWS), target.vector_registers
        rows, vectors = register_tile(heights, _panels(found.outputs, target), registers)
        window_rows, window_vectors = register_tile(
            heights, _panels(found.channels, target), registers
        )
        tiles = found.width // rows
        pixels = max(1, target.second_cache // 4 // (4 * found.channels))
        band = 1
        for wider in divisors(found.height, MAX_BAND):
            chunks = found.batch * found.height // wider
            if chunks >= 2 * target.threads and wider * found.width <= pixels:
                band = wider
        while tiles > 1 and found.width > pixels and found.width % (2 * rows) == 0:
            tiles = max(divisors(found.width // rows, tiles - 1))
            if tiles * rows <= pixels:
                break
        if tiles * rows % window_rows:
            window_rows = max(r for r in divisors(tiles * rows, MAX_ROWS) if r <= window_rows)
        chosen: dict[str, ParameterValue] = {
            "band": band,
            "tiles": tiles,
            "rows": rows,
            "vectors": vectors,
            "unroll": 4,  # divides the channels of whatever this space matches
            "window_rows": window_rows,
            "window_vectors": window_vectors,
            "order": "rows",
        }
        if found.padding is not None:
            chosen["padding"] = "band"
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        found = _separable(task)
        p = _checked(found, target, parameters)
        band, tiles, rows, vectors = (int(p[n]) for n in ("band", "tiles", "rows", "vectors"))
        window_rows, window_vectors = int(p["window_rows"]), int(p["window_vectors"])
        pixels = band * tiles * rows
        chunks = found.batch * found.height * found.width // pixels
        read = (band * found.stride + 2) * (tiles * rows * found.stride + 2) / found.stride**2
        return {
            "band": float(band),
            "pixels": float(pixels),
            "rows": float(rows),
            "vectors": float(vectors),
            "accumulators": float(rows * vectors),
            "intensity": rows * vectors / (rows + vectors),
            "window_rows": float(window_rows),
            "window_vectors": float(window_vectors),
            "window_accumulators": float(window_rows * window_vectors),
            "unroll": float(p["unroll"]),
            "by_rows": float(p["order"] == "rows"),
            "inline": float(p.get("padding") == "inline"),
            "halo": read / pixels,
            "between_bytes": 4.0 * pixels * found.channels,
            "weights_bytes": 4.0 * found.channels * found.outputs,
            "weights_per_pixel": float(found.channels * found.outputs) / pixels,
            "balance": chunks / (-(-chunks // target.threads) * target.threads),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        found = _separable(task)
        p = _checked(found, target, parameters)
        lanes = even_part(found.outputs, target.lanes()), even_part(found.channels, target.lanes())
        SeparableSchedule(schedule, task.workload, found, lanes, p).run()


def _separable(task: Task) -> Separable:
    found = separable_of(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is no separable convolution")
    return found


def _panels(channels: int, target: Target) -> list[int]:
    return divisors(channels // even_part(channels, target.lanes()), MAX_VECTORS)


def _checked(found: Separable, target: Target, p: Parameters) -> Parameters:
    width = int(p["tiles"]) * int(p["rows"])
    if found.width % width:
        raise InvalidParameters(f"chunks of {width} pixels do not divide {found.width}")
    if width % int(p["window_rows"]):
        raise InvalidParameters(f"window_rows does not divide chunks of {width} pixels")
    for rows, vectors in (("rows", "vectors"), ("window_rows", "window_vectors")):
        check_accumulators(target, p, rows, vectors)
    if 4 * int(p["band"]) * width * found.channels > (target.l3 or 1 << 24):
        raise InvalidParameters("what is between the convolutions exceeds the caches")
    return p
