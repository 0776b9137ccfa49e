"""Sums of products of short numbers, a tile at a time, on targets that multiply whole tiles (AMX).

As many tiles of sums as there is room for stay where they are over the whole reduction; when they
are done they are stored in a chunk of the result, which what follows walks row by row. Rows of a
tile are pixels next to each other, or rows of a matrix.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.dot import Dot
from search_spaces.cpu.dots import copied
from search_spaces.cpu.registers import divisors
from search_spaces.cpu.structure import Tiled, tiled
from search_spaces.cpu.tile import COLUMNS, COUNT, ROWS, Tiles, depth_of, tiled_dot
from search_spaces.cpu.tiled import MAX_BAND
from search_spaces.cpu.tiles_schedule import TileSchedule
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST_ROWS = 4
"""Rows that are worth a tile."""


class TileSpace(SearchSpace):
    """How many tiles are kept, and in which order and in what chunks they are computed.

    ``rows`` of ``vectors`` tiles next to each other are kept; where those are more rows than a tile
    has, in several below each other. Tiles and chunks are full: they divide rows and columns.
    """

    name = "cpu.tiles"
    version = 1
    priority = 40

    def matches(self, task: Task, target: Target) -> bool:
        found = _found(task, target)
        if found is None:
            return False
        nest, dot = found
        return (
            nest.packed is not None
            and nest.columns % COLUMNS == 0
            and nest.block.axes[nest.reduced[-1]].extent % depth_of(dot) == 0
            and max(_rows(nest, dot), default=0) >= LEAST_ROWS
        )

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        nest, dot = self._nest(task, target)
        across = divisors(nest.columns // COLUMNS, COUNT // 2 - 1)
        found: dict[str, BaseDistribution] = {
            "rows": CategoricalDistribution(_rows(nest, dot)),
            "vectors": CategoricalDistribution(across),
            "row_tiles": CategoricalDistribution(divisors(nest.rows, MAX_BAND)),
            "column_tiles": CategoricalDistribution(divisors(nest.columns // COLUMNS, MAX_BAND)),
            "order": CategoricalDistribution(["columns", "rows"]),
            "grid": CategoricalDistribution(["rows", "columns"]),
            "parallel": CategoricalDistribution([True, False]),
        }
        if nest.outer:
            extent = nest.block.axes[nest.outer[-1]].extent
            found["band"] = CategoricalDistribution(divisors(extent, MAX_BAND))
        if nest.padding is not None:
            found["padding"] = CategoricalDistribution(copied(task, nest))
        return found

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        nest, dot = self._nest(task, target)
        rows, vectors = min(
            (
                (rows, vectors)
                for rows in _rows(nest, dot)
                for vectors in divisors(nest.columns // COLUMNS, COUNT // 2 - 1)
                if Tiles.of(dot, rows, vectors).fits
            ),
            key=lambda tile: (_cycles(nest, dot, *tile), -tile[0] * tile[1]),
        )
        down, across = nest.rows // rows, nest.columns // (vectors * COLUMNS)
        outer = nest.extent(nest.outer)
        # Sums of a chunk, and the panels that are read for each of its rows, stay in the cache.
        panel = nest.depth * vectors * COLUMNS * 4 // dot.depth
        most_across = max(1, target.second_cache // 2 // panel)
        most_down = max(1, target.second_cache // 4 // (4 * rows * vectors * COLUMNS))
        columns = across if nest.cropped else max(divisors(across, most_across))
        row_tiles = max(divisors(down, max(1, most_down // columns)))
        band = 1
        if nest.outer:
            bands = divisors(nest.block.axes[nest.outer[-1]].extent, MAX_BAND)
            wanted = 4 if nest.padding is not None else 1
            band = max(b for b in bands if b <= wanted)

        def chunks() -> int:
            return outer // band * (down // row_tiles) * (across // columns)

        while chunks() < 2 * target.threads and row_tiles > 1:
            row_tiles = max(divisors(down, row_tiles - 1))
        while chunks() < 2 * target.threads and columns > 1 and not nest.cropped:
            columns = max(divisors(across, columns - 1))
        chosen: dict[str, ParameterValue] = {
            "rows": rows,
            "vectors": vectors,
            "row_tiles": row_tiles,
            "column_tiles": columns,
            "order": "rows",
            "grid": "columns" if nest.columns > nest.rows * outer else "rows",
            "parallel": 2.0 * outer * nest.rows * nest.columns * nest.depth > 400_000,
        }
        if nest.outer:
            chosen["band"] = band
        if nest.padding is not None:
            chosen["padding"] = "band" if columns == across else copied(task, nest)[-1]
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        nest, dot = self._nest(task, target)
        p = parameters
        tiles = self._check(task, nest, dot, p)
        width = tiles.across * COLUMNS
        down, across = nest.rows // tiles.rows, nest.columns // width
        chunk_r, chunk_c = int(p["row_tiles"]), int(p["column_tiles"])
        band = int(p.get("band", 1))
        chunks = nest.extent(nest.outer) / band * (down / chunk_r) * (across / chunk_c)
        return {
            "height": float(tiles.height),
            "down": float(tiles.down),
            "across": float(tiles.across),
            "intensity": tiles.down * tiles.across / (tiles.down + tiles.across),
            "cycles": _cycles(nest, dot, tiles.rows, tiles.across),
            "steps": nest.depth / depth_of(dot),
            "order": float(p["order"] == "rows"),
            "grid": float(p["grid"] == "rows"),
            "parallel": float(bool(p["parallel"])),
            "chunks": chunks,
            "balance": chunks / (ceil(chunks / target.threads) * target.threads),
            "chunk_rows": float(chunk_r * tiles.rows * band),
            "chunk_columns": float(chunk_c * width),
            "panels_bytes": 4.0 * nest.depth * width * chunk_c / dot.depth,
            "data_bytes": 4.0 * nest.depth * tiles.rows * chunk_r / dot.depth,
            "sums_bytes": 4.0 * tiles.rows * chunk_r * band * width * chunk_c,
            "band": float(band),
            "pad_band": float(p.get("padding") == "band"),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        nest, dot = self._nest(task, target)
        self._check(task, nest, dot, parameters)
        # The sums of a chunk are all done before what follows walks it.
        chosen = {**parameters, "epilogue": "chunk"}
        TileSchedule(schedule, task, nest, target, chosen, dot).run()

    def _nest(self, task: Task, target: Target) -> tuple[Tiled, Dot]:
        found = _found(task, target)
        if found is None:
            raise InvalidParameters(f"{task.workload.name} is no sum of tiles here")
        return found

    def _check(self, task: Task, nest: Tiled, dot: Dot, p: Parameters) -> Tiles:
        rows, vectors = int(p["rows"]), int(p["vectors"])
        if rows not in _rows(nest, dot) or nest.columns % (vectors * COLUMNS):
            raise InvalidParameters("the tiles do not divide the rows or the columns")
        tiles = Tiles.of(dot, rows, vectors)
        if not tiles.fits:
            raise InvalidParameters(f"{tiles.down} x {vectors} tiles of sums leave no room")
        if nest.rows // rows % int(p["row_tiles"]):
            raise InvalidParameters("row_tiles leaves a tail")
        across = nest.columns // (vectors * COLUMNS)
        if across % int(p["column_tiles"]):
            raise InvalidParameters("column_tiles leaves a tail")
        if nest.cropped and across != int(p["column_tiles"]):
            raise InvalidParameters("columns that nobody reads have no chunk of their own")
        if nest.padding is not None and p["padding"] not in copied(task, nest):
            raise InvalidParameters("padding has too few loops to be shared among threads")
        return tiles


def _found(task: Task, target: Target) -> tuple[Tiled, Dot] | None:
    """The reduction, whose rows are those of its last axis, and the sum that it is."""
    nest = tiled(task.workload) if target.kind == "llvm" else None
    dot = tiled_dot(nest.block.name, target) if nest is not None else None
    if nest is None or dot is None or not nest.tile:
        return None
    *merged, last = nest.tile
    return replace(nest, tile=(last,), outer=(*nest.outer, *merged)), dot


def _rows(nest: Tiled, dot: Dot) -> list[int]:
    """How many rows may be kept: those of one tile, or of two or three of the same height."""
    return [r for r in divisors(nest.rows, 3 * ROWS) if r > 1 and Tiles.of(dot, r, 1).fits]


def _cycles(nest: Tiled, dot: Dot, rows: int, vectors: int) -> float:
    """Estimated, of all tiles: a row is multiplied in one cycle, and two are loaded in one.

    Intel, "64 and IA-32 Architectures Optimization Reference Manual", chapter on AMX.
    """
    steps = nest.depth / depth_of(dot)
    multiply, load = rows * vectors, (rows + ROWS * vectors) / 2
    store = 2.0 * rows * vectors
    blocks = nest.rows / rows * nest.columns / (vectors * COLUMNS)
    return blocks * (steps * max(multiply, load) + store)
