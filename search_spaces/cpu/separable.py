"""A depthwise and a pointwise convolution as one kernel, a band of the image at a time.

What ``graph.separable`` makes. The depthwise result of a chunk of pixels, all channels of it, is
computed into the cache, and multiplied by the pointwise weights while it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.separable_schedule import SeparableSchedule
from search_spaces.cpu.structure import even_part
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
    ``width`` are of the result, ``taps`` the products of one depthwise pixel.
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
    taps: int
    stride: int

    def lanes(self, channels: int, target: Target) -> int:
        """Elements of the vectors that ``channels`` are computed in: they leave no tail."""
        return even_part(channels, target.lanes())


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
    if not _is_depthwise(workload, first) or not _is_pointwise(workload, second):
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
    if channels % 4 or outputs % 4:
        return None
    taps = 1
    for axis in first.axes[4:]:
        taps *= axis.extent
    rows = blocks[source].axes[1].extent if source is not None else _rows(workload, first)
    return Separable(
        depthwise, feed, pointwise, source, batch, height, width, channels, outputs, taps,
        stride=max(1, rows // height),
    )  # fmt: skip


def _rows(workload: Workload, depthwise: Block) -> int:
    return workload.arguments[depthwise.reads[0].buffer].shape[1]


def _is_depthwise(workload: Workload, block: Block) -> bool:
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
        rows = _divisors(found.width, MAX_ROWS)
        options: dict[str, BaseDistribution] = {
            "band": CategoricalDistribution(_divisors(found.height, MAX_BAND)),
            "tiles": CategoricalDistribution(_divisors(found.width, 64)),
            "rows": CategoricalDistribution(rows),
            "vectors": CategoricalDistribution(_panels(found.outputs, found, target)),
            "unroll": CategoricalDistribution([u for u in (1, 2, 4, 8) if found.channels % u == 0]),
            "window_rows": CategoricalDistribution(rows),
            "window_vectors": CategoricalDistribution(_panels(found.channels, found, target)),
            "order": CategoricalDistribution(["rows", "columns"]),
        }
        if found.padding is not None:
            options["padding"] = CategoricalDistribution(["band", "inline"])
        return options

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        found = _separable(task)
        vectors, rows = _register_tile(found.outputs, found, target)
        window_vectors, window_rows = _register_tile(found.channels, found, target)
        tiles = found.width // rows
        pixels = max(1, (target.l2 or 262144) // 4 // (4 * found.channels))
        band = 1
        for wider in _divisors(found.height, MAX_BAND):
            chunks = found.batch * found.height // wider
            if chunks >= 2 * target.threads and wider * found.width <= pixels:
                band = wider
        while tiles > 1 and found.width > pixels and found.width % (2 * rows) == 0:
            smaller = [t for t in _divisors(found.width // rows, tiles - 1)]
            tiles = max(smaller)
            if tiles * rows <= pixels:
                break
        if tiles * rows % window_rows:
            window_rows = max(r for r in _divisors(tiles * rows, MAX_ROWS) if r <= window_rows)
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
        lanes = found.lanes(found.outputs, target), found.lanes(found.channels, target)
        SeparableSchedule(schedule, task.workload, found, lanes, p).run()


def _separable(task: Task) -> Separable:
    found = separable_of(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is no separable convolution")
    return found


def _divisors(extent: int, most: int) -> list[int]:
    return [d for d in range(1, min(extent, most) + 1) if extent % d == 0]


def _panels(channels: int, found: Separable, target: Target) -> list[int]:
    vectors = channels // found.lanes(channels, target)
    return [v for v in range(1, MAX_VECTORS + 1) if vectors % v == 0]


def _register_tile(channels: int, found: Separable, target: Target) -> tuple[int, int]:
    """Vectors and rows of the tile with most products for each load that fits the registers."""
    best = (0.0, 1, 1)
    for vectors in _panels(channels, found, target):
        for rows in _divisors(found.width, MAX_ROWS):
            if rows * vectors + vectors + 1 <= target.vector_registers:
                best = max(best, (rows * vectors / (rows + vectors), vectors, rows))
    return best[1], best[2]


def _checked(found: Separable, target: Target, p: Parameters) -> Parameters:
    width = int(p["tiles"]) * int(p["rows"])
    if found.width % width:
        raise InvalidParameters(f"chunks of {width} pixels do not divide {found.width}")
    if width % int(p["window_rows"]):
        raise InvalidParameters(f"window_rows does not divide chunks of {width} pixels")
    for rows, vectors in (("rows", "vectors"), ("window_rows", "window_vectors")):
        if int(p[rows]) * int(p[vectors]) >= target.vector_registers:
            raise InvalidParameters(f"{p[rows]} x {p[vectors]} accumulators exceed the registers")
    if 4 * int(p["band"]) * width * found.channels > (target.l3 or 1 << 24):
        raise InvalidParameters("what is between the convolutions exceeds the caches")
    return p
