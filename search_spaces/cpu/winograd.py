"""Winograd's algorithm for 3x3 convolutions of stride 1, as a space of its own.

It needs 2.25 or 4 times fewer multiplications than ``cpu.tiled``, and moves more data: transformed
kernels are 1.8 or 4 times as large as the kernels. Which is faster is for the search to find out.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.registers import divisors
from search_spaces.cpu.winograd_function import BT, Image, Tiling, image_of, rewritten
from search_spaces.cpu.winograd_schedule import WinogradSchedule
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_ROWS = 14
MAX_VECTORS = 6
BANDS = (1, 2, 3, 4, 6, 8, 16)


class WinogradSpace(SearchSpace):
    """Size of the tiles, how many are transformed together, and the register tile of the products.

    ``size`` pixels a side come out of each tile. ``band`` rows of tiles are one chunk. With
    ``phases`` all chunks are transformed first, then all products are computed, then all pixels:
    that reads the transformed kernels once, where otherwise each chunk reads all of them, but
    keeps its own data in the cache.
    """

    name = "cpu.winograd"
    version = 1
    priority = 25

    def matches(self, task: Task, target: Target) -> bool:
        if target.kind != "llvm":
            return False
        image = image_of(task.workload)
        return (
            image is not None
            and image.channels % 4 == 0
            and image.channels >= 8
            and image.outputs % image.nest.lanes(target) == 0
        )

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        image = _image(task)
        most, _ = image.tiles(min(BT))
        return {
            "size": CategoricalDistribution(sorted(BT)),
            "band": CategoricalDistribution([b for b in BANDS if b <= most]),
            "rows": IntDistribution(1, MAX_ROWS),
            "vectors": CategoricalDistribution(_panels(image, target)),
            "unroll": CategoricalDistribution([u for u in (1, 2, 4, 8) if image.channels % u == 0]),
            "phases": CategoricalDistribution([False, True]),
            "parallel": CategoricalDistribution([True, False]),
        }

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        image = _image(task)
        kernels = {m: 4 * (m + 2) ** 2 * image.channels * image.outputs for m in BT}
        # Transformed kernels come from memory: where they are large, fewer are better.
        size = max(m for m in BT if kernels[m] < 16 * target.second_cache or m == min(BT))
        down, across = image.tiles(size)
        # Kernels that are larger than the caches of one core are better read once.
        phases = kernels[size] > 4 * target.second_cache or down < 2 * target.threads
        band = 1
        for wider in (b for b in BANDS if down % b == 0):
            if (phases or down >= 2 * target.threads * wider) and band * across < 12:
                band = wider
        vectors = max(v for v in _panels(image, target) if v <= 4)
        most = min(MAX_ROWS, target.vector_registers // vectors - 1)
        rows = min(range(most, 0, -1), key=lambda r: (ceil(band * across / r) * (r + 1), -r))
        return {
            "size": size,
            "band": band,
            "rows": rows,
            "vectors": vectors,
            "unroll": 4,  # divides the channels of whatever this space matches
            "phases": phases,
            "parallel": True,
        }

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        tiling = _tiling(task, target, parameters)
        image, p = tiling.image, parameters
        points = tiling.points**2
        wanted = image.rows * image.columns / tiling.size**2
        chunks = image.batch * tiling.chunks
        units = points * image.outputs // (tiling.vectors * tiling.lanes)
        jobs = chunks * units if p["phases"] else chunks
        return {
            "size": float(tiling.size),
            "band": float(tiling.band),
            "rows": float(tiling.rows),
            "vectors": float(tiling.vectors),
            "accumulators": float(tiling.rows * tiling.vectors),
            "intensity": tiling.rows * tiling.vectors / (tiling.rows + tiling.vectors),
            "unroll": float(p["unroll"]),
            "phases": float(bool(p["phases"])),
            "parallel": float(bool(p["parallel"])),
            "waste": tiling.chunks * tiling.tiles / wanted,
            "chunks": float(chunks),
            "balance": jobs / (ceil(jobs / target.threads) * target.threads),
            "tiles_bytes": 4.0 * points * tiling.tiles * image.channels,
            "products_bytes": 4.0 * points * tiling.tiles * image.outputs,
            "kernels_bytes": 4.0 * points * image.channels * image.outputs,
            "panel_bytes": 4.0 * image.channels * tiling.vectors * tiling.lanes,
        }

    def rewrite(self, module: Any, task: Task, target: Target, parameters: Parameters) -> Any:
        return rewritten(module, task.workload, _tiling(task, target, parameters))

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        tiling = _tiling(task, target, parameters)
        WinogradSchedule(schedule, tiling, target, parameters).run()


def _image(task: Task) -> Image:
    found = image_of(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is no 3x3 convolution of stride 1")
    return found


def _panels(image: Image, target: Target) -> list[int]:
    """How many vectors may be one panel: what divides the outputs."""
    return divisors(image.outputs // image.nest.lanes(target), MAX_VECTORS)


def _tiling(task: Task, target: Target, p: Parameters) -> Tiling:
    image = _image(task)
    tiling = Tiling(
        image, int(p["size"]), int(p["band"]), int(p["rows"]), int(p["vectors"]),
        image.nest.lanes(target),
    )  # fmt: skip
    if tiling.size not in BT:
        raise InvalidParameters(f"there is no transform for tiles of {tiling.size} pixels")
    if (tiling.rows + 1) * tiling.vectors > target.vector_registers:
        raise InvalidParameters(
            f"{tiling.rows} x {tiling.vectors} accumulators do not fit the registers"
        )
    if image.outputs % (tiling.vectors * tiling.lanes) or image.channels % int(p["unroll"]):
        raise InvalidParameters("the channels are not a multiple of the panel or the unrolling")
    down, across = image.tiles(tiling.size)
    if tiling.band > down:
        raise InvalidParameters(f"there are only {down} rows of tiles")
    if tiling.chunks * tiling.tiles > 2 * down * across:
        raise InvalidParameters("more than half of the tiles would be outside of the image")
    return tiling
