"""Attention as one kernel: scores, softmax and values of a few rows at a time.

What ``graph.attention`` makes: a product, a chain of elementwise blocks, a maximum, exponentials,
their sum, and a second product that the sum divides. The keys of a head are turned around once; the
scores of a tile of rows then live in the first caches until their values are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.attention_schedule import AttentionSchedule
from search_spaces.cpu.registers import check_accumulators, divisors, register_tile
from search_spaces.cpu.structure import LEAST_VECTOR, even_part
from search_spaces.task import Block, Parameters, ParameterValue, Target, Task, Workload

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_TILE = 128
MAX_ROWS = 14
MAX_VECTORS = 4

USUAL_ROWS = (1, 2, 4, 6, 8, 12)
"""Heights of register tiles that are tried first."""


@dataclass(frozen=True)
class Attention:
    """Blocks of a fused attention by index, and its sizes.

    ``scaled`` is the last elementwise block between scores and maximum, None where there is none;
    ``keys`` and ``values`` are the blocks that bring those into place, None where they are
    arguments. There are ``heads`` times ``rows`` rows of ``length`` scores, each of ``depth``
    products, and ``columns`` values in a row of the result. ``order`` is where the axes of the
    product are among the loops of the output.
    """

    scores: int
    scaled: int | None
    peak: int
    weights: int
    total: int
    product: int
    keys: int | None
    values: int | None
    heads: int
    rows: int
    length: int
    depth: int
    columns: int
    order: tuple[int, ...]


@lru_cache(maxsize=1024)
def attention_of(workload: Workload) -> Attention | None:
    """Read ``workload`` as an attention; None where it is something else."""
    blocks = workload.blocks
    reductions = [i for i, block in enumerate(blocks) if block.reduction]
    if len(reductions) != 4 or workload.outputs != 1 or any(len(b.writes) != 1 for b in blocks):
        return None
    scores, peak, total, product = reductions
    made = {block.writes[0].buffer: i for i, block in enumerate(blocks)}
    last = blocks[product]
    if len(last.reads) != 2 or len(blocks[scores].reads) != 2 or product == len(blocks) - 1:
        return None
    weights = made.get(last.reads[0].buffer)
    if weights is None or [r.buffer for r in blocks[total].reads] != [last.reads[0].buffer]:
        return None
    scaled = made.get(blocks[peak].reads[0].buffer)
    if scaled is None or not scores <= scaled < peak:
        return None
    if not all(_plain_product(blocks[i]) for i in (scores, product)):
        return None
    order = _order(blocks, product)
    if order is None or blocks[scores].writes[0].dims[-1] == ():
        return None
    *batch, rows, columns = [axis.extent for axis in last.axes if not axis.reduced]
    length = last.axes[-1].extent
    if length % LEAST_VECTOR or columns % LEAST_VECTOR or blocks[scores].axes[-2].extent != length:
        return None
    return Attention(
        scores=scores,
        scaled=None if scaled == scores else scaled,
        peak=peak,
        weights=weights,
        total=total,
        product=product,
        keys=made.get(blocks[scores].reads[1].buffer),
        values=made.get(last.reads[1].buffer),
        heads=prod(batch),
        rows=rows,
        length=length,
        depth=blocks[scores].axes[-1].extent,
        columns=columns,
        order=order,
    )


def _plain_product(block: Block) -> bool:
    """Whether ``block`` is [batch, m, k] times [batch, k, n], reduced over its last axis alone."""
    *spatial, reduced = block.axes
    dims = len(spatial)
    if not reduced.reduced or any(axis.reduced for axis in spatial) or dims < 3:
        return False
    batch = [(i,) for i in range(dims - 2)]
    one, other = block.reads
    wanted = [*batch, (dims - 2,), (dims,)], [*batch, (dims,), (dims - 1,)]
    result = tuple((i,) for i in range(dims))
    # Axes of extent 1 may be written as constants.
    return all(
        read.plain and _same(read.dims, want, block)
        for read, want in ((one, wanted[0]), (other, wanted[1]))
    ) and _same(block.writes[0].dims, result, block)


def _same(dims: Any, wanted: Any, block: Block) -> bool:
    return len(dims) == len(wanted) and all(
        own == want or (not own and block.axes[want[0]].extent == 1)
        for own, want in zip(dims, wanted, strict=True)
    )


def _order(blocks: tuple[Block, ...], product: int) -> tuple[int, ...] | None:
    """The axis of the last block that each spatial axis of ``product`` becomes."""
    rank = len(blocks[product].axes) - 1
    order = tuple(range(rank))
    buffer = blocks[product].writes[0].buffer
    for block in blocks[product + 1 :]:
        read = next((r for r in block.reads if r.buffer == buffer), None)
        if read is None or block.reduction or not read.plain or len(block.axes) != rank:
            return None
        if block.writes[0].dims != tuple((i,) for i in range(rank)):
            return None
        places = [dim[0] if len(dim) == 1 else -1 for dim in read.dims]
        if sorted(places) != list(range(rank)):
            return None
        order = tuple(places[axis] for axis in order)
        buffer = block.writes[0].buffer
    return order if order[-1] == rank - 1 else None


class AttentionSpace(SearchSpace):
    """Rows that are kept together, the register tiles of both products, and what is shared.

    ``tile`` rows of scores are computed, normalised and used up before the next ones. With
    ``share`` "heads" a thread does whole heads, with "tiles" the tiles of all heads are shared,
    and keys are turned for all of them before. ``copy`` lays the values of a head side by side.
    """

    name = "cpu.attention"
    version = 1
    priority = 40

    def matches(self, task: Task, target: Target) -> bool:
        return target.kind == "llvm" and attention_of(task.workload) is not None

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        found = _attention(task)
        rows = divisors(found.rows, MAX_ROWS)
        options: dict[str, BaseDistribution] = {
            "tile": CategoricalDistribution(_tiles(found)),
            "rows": CategoricalDistribution(rows),
            "vectors": CategoricalDistribution(_panels(found.length, target)),
            "value_rows": CategoricalDistribution(rows),
            "value_vectors": CategoricalDistribution(_panels(found.columns, target)),
            "unroll": CategoricalDistribution([u for u in (1, 2, 4, 8) if found.depth % u == 0]),
            "share": CategoricalDistribution(["heads", "tiles"]),
        }
        if found.values is not None:
            options["copy"] = CategoricalDistribution([False, True])
        return options

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        found = _attention(task)
        # Few products make a score: LLVM brings their operands in ahead, and needs room for them.
        half, registers = target.vector_registers // 2, target.vector_registers
        heights = [r for r in divisors(found.rows, MAX_ROWS) if r in USUAL_ROWS]
        rows, vectors = register_tile(heights, _panels(found.length, target), half, tall=True)
        value_rows, value_vectors = register_tile(
            heights, _panels(found.columns, target), registers, tall=True
        )
        fitting = [
            tile
            for tile in _tiles(found)
            if tile % rows == 0
            and tile % value_rows == 0
            and 8 * tile * found.length <= target.second_cache // 4
        ]
        least = max(rows, value_rows)
        tile = max(fitting, default=min(t for t in _tiles(found) if t >= least))
        if tile % rows or tile % value_rows:
            rows = value_rows = 1
        chosen: dict[str, ParameterValue] = {
            "tile": tile,
            "rows": rows,
            "vectors": vectors,
            "value_rows": value_rows,
            "value_vectors": value_vectors,
            "unroll": max(u for u in (1, 2, 4) if found.depth % u == 0),
            "share": "heads" if found.heads % target.threads == 0 else "tiles",
        }
        if found.values is not None:
            chosen["copy"] = found.length * found.columns * 4 > target.l1 // 2
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        found = _attention(task)
        p = _checked(found, target, parameters)
        rows, vectors = int(p["rows"]), int(p["vectors"])
        value_rows, value_vectors = int(p["value_rows"]), int(p["value_vectors"])
        tile = int(p["tile"])
        tiles = found.rows // tile
        jobs = found.heads * (1 if p["share"] == "heads" else tiles)
        return {
            "tile": float(tile),
            "rows": float(rows),
            "vectors": float(vectors),
            "value_rows": float(value_rows),
            "value_vectors": float(value_vectors),
            "accumulators": float(rows * vectors),
            "value_accumulators": float(value_rows * value_vectors),
            "intensity": rows * vectors / (rows + vectors),
            "value_intensity": value_rows * value_vectors / (value_rows + value_vectors),
            "unroll": float(p["unroll"]),
            "whole_heads": float(p["share"] == "heads"),
            "copy": float(bool(p.get("copy", False))),
            "scores_bytes": 8.0 * tile * found.length,
            "keys_bytes": 4.0 * found.depth * found.length,
            "balance": jobs / (-(-jobs // target.threads) * target.threads),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        found = _attention(task)
        p = _checked(found, target, parameters)
        lanes = even_part(found.length, target.lanes()), even_part(found.columns, target.lanes())
        AttentionSchedule(schedule, task.workload, found, lanes, p).run()


def _attention(task: Task) -> Attention:
    found = attention_of(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is no attention")
    return found


def _tiles(found: Attention) -> list[int]:
    return divisors(found.rows, MAX_TILE)


def _panels(extent: int, target: Target) -> list[int]:
    return divisors(extent // even_part(extent, target.lanes()), MAX_VECTORS)


def _checked(found: Attention, target: Target, p: Parameters) -> Parameters:
    tile = int(p["tile"])
    for rows, vectors in (("rows", "vectors"), ("value_rows", "value_vectors")):
        if tile % int(p[rows]):
            raise InvalidParameters(f"{rows} does not divide a tile of {tile}")
        check_accumulators(target, p, rows, vectors)
    return p
