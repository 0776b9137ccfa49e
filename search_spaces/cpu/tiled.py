"""Register-tiled reductions: matrix products, convolutions of every kind, pooling.

One schedule serves them all, because in NHWC they share a shape: rows (pixels, or rows of a
matrix) by columns (channels, contiguous) over a reduction. A tile of ``rows`` x ``vectors``
vector registers is kept in registers over the whole reduction (Goto and van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008); weights are packed at compile time so that each
step of the reduction reads consecutive vectors. A convolution with a window reads its image where
it lies ("direct"), or what each pixel needs is gathered first, a chunk at a time or once, which
makes it a product of two matrices ("gemm"; im2col in Chellapilla et al., "High performance
convolutional neural networks for document processing", 2006).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.registers import divisors
from search_spaces.cpu.structure import Tiled, even_part, reads_besides, tiled
from search_spaces.cpu.tiled_schedule import TiledSchedule
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_ROWS = 14
MAX_VECTORS = 6
MAX_BAND = 64

TAIL = 0.1
"""Share of the time that a tail of rows costs, on top of what it wastes."""


class TiledSpace(SearchSpace):
    """Tile sizes, loop order, unrolling and parallel grain of one tiled reduction."""

    name = "cpu.tiled"
    version = 2
    priority = 30

    def matches(self, task: Task, target: Target) -> bool:
        nest = tiled(task.workload)
        whole = nest is not None and nest.block.name.startswith("integer_")
        return target.kind == "llvm" and nest is not None and not whole

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        nest = _nest(task)
        lanes = nest.lanes(target)
        vectors = max(1, min(MAX_VECTORS, ceil((nest.group or nest.columns) / lanes)))
        last = nest.block.axes[nest.reduced[-1]].extent
        found: dict[str, BaseDistribution] = {
            "rows": IntDistribution(1, max(1, min(MAX_ROWS, nest.rows))),
            "vectors": IntDistribution(1, vectors),
            "unroll": CategoricalDistribution([u for u in (1, 2, 3, 4, 5, 8) if last % u == 0]),
            "order": CategoricalDistribution(["columns", "rows"]),
            "row_tiles": CategoricalDistribution(powers(nest.rows)),
            "column_tiles": CategoricalDistribution(powers(ceil(nest.columns / lanes))),
            "parallel": CategoricalDistribution([True, False]),
            "grid": CategoricalDistribution(["rows", "columns"]),
        }
        if nest.outer:
            found["band"] = CategoricalDistribution(_bands(nest))
        if len(nest.reduced) > 1:
            found["unroll_window"] = CategoricalDistribution([False, True])
        if nest.anchor < len(task.workload.blocks) - 1 and not nest.cropped:
            found["epilogue"] = CategoricalDistribution(["tile", "chunk"])
        if nest.padding is not None:
            places = ["band", "whole", "inline", *["border"] * _may_skip(nest, target)]
            found["padding"] = CategoricalDistribution(places)
        if nest.gathered is not None:
            found["algorithm"] = CategoricalDistribution(["direct", "gemm"])
        return found

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        nest = _nest(task)
        rows, vectors = _register_tile(nest, target)
        lanes = nest.lanes(target)
        options = self.parameters(task, target)
        last = nest.block.axes[nest.reduced[-1]].extent
        window = prod(nest.block.axes[axis].extent for axis in nest.reduced[:-1])
        row_tiles = ceil(nest.rows / rows)
        column_tiles = ceil(nest.columns / (vectors * lanes))
        work = 2.0 * nest.extent(nest.outer) * nest.rows * nest.columns * nest.depth
        chosen: dict[str, ParameterValue] = {
            "rows": rows,
            "vectors": vectors,
            "unroll": max(u for u in (1, 2, 3, 4, 5) if last % u == 0 and u * rows * vectors <= 96),
            "order": "rows" if nest.packed is not None else "columns",
            "parallel": work > 40_000,
            "grid": "columns" if nest.columns > nest.rows * nest.extent(nest.outer) else "rows",
        }
        band = 1
        if nest.outer:
            most = nest.extent(nest.outer) // (2 * target.threads)
            wanted = 1 if nest.padding is None else max(1, min(6, most))
            band = max(d for d in _bands(nest) if d <= wanted)
            chosen["band"] = band
        outer = ceil(nest.extent(nest.outer) / band)
        # Enough chunks for the threads to end together; else as large as the second-level cache
        # likes, since the packed panel is read again for every row tile of the chunk.
        panel = 4 * nest.depth * vectors * lanes
        grain_c = _floor_power(max(1, target.second_cache // 2 // max(1, panel)))
        grain_r = 64
        while grain_r > 1 and outer * ceil(row_tiles / grain_r) < 4 * target.threads:
            grain_r //= 2
        chunks = outer * ceil(row_tiles / grain_r)
        while grain_c > 1 and chunks * ceil(column_tiles / grain_c) < 4 * target.threads:
            grain_c //= 2
        if nest.rows % rows:
            grain_r = max(2, grain_r)
        if nest.columns % (vectors * lanes):
            grain_c = max(2, grain_c)
        chosen["row_tiles"] = clip(grain_r, powers(row_tiles))
        chosen["column_tiles"] = clip(grain_c, powers(column_tiles))
        if "epilogue" in options:
            chosen["epilogue"] = "tile"
            even = nest.rows % rows == 0 and nest.columns % (vectors * lanes) == 0
            if even and reads_besides(task.workload, nest):
                # A chunk that the second-level cache keeps until its epilogue is done.
                most = max(1, target.second_cache // 16 // (4 * rows * vectors * lanes))
                down = even_part(row_tiles, min(grain_r, most))
                across = even_part(column_tiles, min(grain_c, max(1, most // down)))
                chosen |= {"epilogue": "chunk", "row_tiles": down, "column_tiles": across}
        if "unroll_window" in options:
            chosen["unroll_window"] = window * last * rows * vectors <= 128
            if chosen["unroll_window"]:
                chosen["unroll"] = 1
        if "algorithm" in options:
            chosen["algorithm"] = "direct"
        if "padding" in options:
            # Inside a chunk the padded rows stay in the cache, but every chunk pads its own. What
            # only skips pixels is read where it is.
            chosen["padding"] = "band" if column_tiles <= grain_c else "whole"
            if not task.workload.blocks[nest.padding or 0].ops:
                chosen["padding"] = "inline"
            elif _may_skip(nest, target):
                chosen |= _bordered(nest, target, options, rows)
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        nest = _nest(task)
        lanes = nest.lanes(target)
        p = parameters
        rows, vectors = int(p["rows"]), int(p["vectors"])
        _check(nest, target, p)
        width = vectors * lanes
        row_tiles, column_tiles = ceil(nest.rows / rows), ceil(nest.columns / width)
        outer = nest.extent(nest.outer)
        band = int(p.get("band", 1))
        chunk_r, chunk_c = int(p["row_tiles"]), int(p["column_tiles"])
        chunks = ceil(outer / band) * ceil(row_tiles / chunk_r) * ceil(column_tiles / chunk_c)
        waste = row_tiles * rows * column_tiles * width / (nest.rows * nest.columns)
        return {
            "rows": float(rows),
            "vectors": float(vectors),
            "accumulators": float(rows * vectors),
            "registers": (rows * vectors * nest.registers(target) + vectors + 1)
            / target.vector_registers,
            "intensity": rows * vectors / (rows + vectors),
            "waste": waste,
            "row_tail": float(nest.rows % rows) / rows,
            "column_tail": float(nest.columns % width) / width,
            "unroll": float(p["unroll"]),
            "body": float(rows * vectors * int(p["unroll"])),
            "order": float(p["order"] == "rows"),
            "chunks": float(chunks),
            "balance": chunks / (ceil(chunks / target.threads) * target.threads),
            "chunk_rows": float(chunk_r * rows * band),
            "chunk_columns": float(chunk_c * width),
            "panel_bytes": 4.0 * nest.depth * width,
            "panels_bytes": 4.0 * nest.depth * width * chunk_c,
            "data_bytes": 4.0 * nest.depth * rows * chunk_r,
            "parallel": float(bool(p["parallel"])),
            "grid": float(p["grid"] == "rows"),
            "window": float(bool(p.get("unroll_window", False))),
            "band": float(band),
            "apart": float(p.get("epilogue") == "chunk"),
            "pad_band": float(p.get("padding") == "band"),
            "pad_whole": float(p.get("padding") == "whole"),
            "pad_border": float(p.get("padding") == "border"),
            "gemm": float(p.get("algorithm") == "gemm"),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        nest = _nest(task)
        _check(nest, target, parameters)
        self.schedule_of(schedule, task, nest, target, parameters).run()

    def schedule_of(
        self, schedule: Any, task: Task, nest: Tiled, target: Target, parameters: Parameters
    ) -> TiledSchedule:
        """What makes the schedule; another one for reductions with steps of their own."""
        return TiledSchedule(schedule, task, nest, target, parameters)


def _nest(task: Task) -> Tiled:
    found = tiled(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is not a tiled reduction")
    return found


def _check(nest: Tiled, target: Target, p: Parameters) -> None:
    """Refuse what would spill, or repeats another candidate."""
    rows, vectors, unroll = int(p["rows"]), int(p["vectors"]), int(p["unroll"])
    if rows * vectors * nest.registers(target) + vectors > target.vector_registers:
        raise InvalidParameters(f"{rows} x {vectors} accumulators do not fit the registers")
    if nest.block.axes[nest.reduced[-1]].extent % unroll:
        raise InvalidParameters(f"the reduction is not a multiple of {unroll}")
    if not nest.divided(vectors, target):
        raise InvalidParameters(f"{vectors} vectors do not divide a group")
    if nest.outer and nest.block.axes[nest.outer[-1]].extent % int(p["band"]):
        raise InvalidParameters(f"the rows are not a multiple of {p['band']}")
    if p.get("algorithm") == "gemm" and p.get("padding", "band") not in ("band", "whole"):
        raise InvalidParameters("what is gathered for a product holds its own padding")
    window = prod(nest.block.axes[axis].extent for axis in nest.reduced)
    if p.get("unroll_window", False):
        if window * rows * vectors > 512:
            raise InvalidParameters("an unrolled window of this size takes minutes to compile")
        if unroll != 1:
            raise InvalidParameters("an unrolled window needs no further unrolling")
    elif rows * vectors * unroll > 128:
        raise InvalidParameters("the unrolled body is too large")
    width = vectors * nest.lanes(target)
    apart = p.get("epilogue") == "chunk"
    for name, extent, size in (
        ("row_tiles", nest.rows, rows),
        ("column_tiles", nest.columns, width),
    ):
        tiles, chunk = ceil(extent / size), int(p[name])
        if apart and extent % (size * chunk):
            raise InvalidParameters(f"{name} leaves a tail, which has no chunk of its own")
        if chunk > 1 and chunk >= 2 * tiles:
            raise InvalidParameters(f"{name} repeats a smaller choice")
        if extent % size and tiles > 1 and chunk == 1:
            # The tail is cut off the loop over a chunk's tiles; with one tile there is no loop,
            # and every tile would carry the condition.
            raise InvalidParameters(f"{name} must be 2 or more where the last tile is not full")


def _may_skip(nest: Tiled, target: Target) -> bool:
    """Whether the border of the image is worth code of its own, which reads no padding.

    Where no operand is read again by other columns, copying the image into a padded one takes as
    long as all the rest. LLVM does badly with conditions on odd vectors.
    """
    lanes = nest.lanes(target)
    return bool(nest.outer) and not nest.broadcast and lanes == even_part(lanes, lanes)


def _bordered(
    nest: Tiled, target: Target, options: Mapping[str, BaseDistribution], rows: int
) -> dict[str, ParameterValue]:
    """Defaults where the border has code of its own: chunks as wide as the image, some rows high.

    Of images that are no higher than the window, most of the window is padding: unrolled, those
    steps are gone.
    """
    height = nest.extent(nest.outer)
    most = min(16, height // (4 * target.threads))
    low = height <= nest.block.axes[nest.reduced[0]].extent and len(nest.reduced) > 1
    if not low and nest.depth <= 9 and nest.rows > 8:
        # Wide tiles would leave little of a row that is no border.
        rows = min(rows, 5 if nest.rows % 5 == 0 and nest.rows % 4 else 4)
    chosen: dict[str, ParameterValue] = {
        "rows": rows,
        "padding": "border",
        "band": max([d for d in _bands(nest) if d <= most], default=1),
        "row_tiles": powers(ceil(nest.rows / rows))[-1],
    }
    if "unroll_window" in options:
        chosen["unroll_window"] = low
    if low:
        # The whole window is unrolled: more columns would make a body of hundreds of steps.
        chosen |= {"unroll": 1, "vectors": 1}
    return chosen


def _register_tile(nest: Tiled, target: Target) -> tuple[int, int]:
    """The register tile with the fewest estimated cycles: multiplications, loads and waste."""
    lanes, registers = nest.lanes(target), target.vector_registers
    best = (float("inf"), 0, 1, 1)
    for vectors in range(1, min(MAX_VECTORS, ceil(nest.columns / lanes)) + 1):
        if not nest.divided(vectors, target):
            continue
        panel = 4 * nest.depth * vectors * lanes
        for rows in range(1, min(MAX_ROWS, nest.rows) + 1):
            if rows * vectors * nest.registers(target) + vectors + 1 > registers:
                continue
            # Two chains of multiply-adds need about ten independent ones to hide their latency.
            multiply = max(rows * vectors, 10) / 2
            load = (vectors + rows * (1 if nest.broadcast else vectors)) / 2
            step = multiply + load / 8
            if panel > (target.l1 or 32768) // 2:
                step = max(step, 2.0 * vectors)  # streamed from the second-level cache
            if panel > target.second_cache * 3 // 4:
                step = max(step, 4.0 * vectors)  # or from beyond it
            tiles = ceil(nest.rows / rows) * ceil(nest.columns / (vectors * lanes))
            # Threads work until the last of them is done.
            shared = tiles * nest.extent(nest.outer)
            balance = ceil(shared / target.threads) * target.threads / shared
            even = nest.rows % rows == 0
            cycles = step * tiles * balance * (1 if even else 1 + TAIL)
            best = min(best, (cycles, -rows * vectors, rows, vectors))
    return best[2], best[3]


def _bands(nest: Tiled) -> list[int]:
    """How many rows of the image one chunk may take: what divides them, so that none is left."""
    return divisors(nest.block.axes[nest.outer[-1]].extent, MAX_BAND)


def powers(limit: int) -> list[int]:
    """How many tiles may be one chunk of ``limit`` of them."""
    return [1 << e for e in range(0, 8) if (1 << e) < 2 * max(1, limit)]


def _floor_power(value: int) -> int:
    return 1 << max(0, int(value).bit_length() - 1)


def clip(value: int, options: Iterable[int]) -> int:
    """The largest of ``options`` that is no more than ``value``."""
    return max(option for option in options if option <= value)
