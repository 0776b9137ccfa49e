"""RNN, GRU and LSTM: a step at a time, its products tiled over panels of the state.

A step multiplies the state with all weights, each of which is used once for every row of the batch:
what counts is that they lie in the order in which they are read, and that enough sums are open at
once to hide how long an addition takes. The panels of all gates of the same columns are computed
together, so that what follows (sigmoid, tanh, the new state) finds them in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.recurrent_schedule import RecurrentSchedule
from search_spaces.cpu.registers import divisors
from search_spaces.cpu.structure import LEAST_VECTOR, even_part
from search_spaces.task import Parameters, ParameterValue, Target, Task, Workload

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_VECTORS = 8
MAX_ROWS = 14
ENOUGH_SUMS = 8
"""Sums that are open at once hide the latency of an addition: two units, four cycles."""

SHARED_ABOVE = 4_000_000
"""Multiplications of a step above which a fork and a join are little beside it."""


@dataclass(frozen=True)
class Recurrent:
    """Sizes of a recurrence: ``gates`` are those of each product of a step, in order.

    The weights of product i are argument 1 + i, [directions, gates, size, columns]: a state of
    ``size`` filled up to ``columns``.
    """

    steps: int
    directions: int
    batch: int
    size: int
    columns: int
    gates: tuple[int, ...]

    @property
    def products(self) -> int:
        """Multiplications of one step in one direction."""
        return self.batch * sum(self.gates) * self.columns * self.size


@lru_cache(maxsize=1024)
def recurrent_of(workload: Workload) -> Recurrent | None:
    """Read ``workload`` as a recurrence; None where it is something else."""
    blocks, arguments = workload.blocks, workload.arguments
    if len(blocks) != 1 or blocks[0].name != "recurrence" or workload.outputs < 2:
        return None
    states = arguments[len(arguments) - workload.outputs].shape
    if len(states) != 4 or any(t.dtype not in ("float32", "int32") for t in arguments):
        return None
    steps, directions, batch, size = states
    weights = [t.shape for t in arguments[1:3] if len(t.shape) == 4]
    if not weights or any(w[0] != directions or w[2] != size for w in weights):
        return None
    gates, columns = tuple(w[1] for w in weights), weights[0][3]
    if arguments[0].shape != (steps * batch, directions * sum(gates) * columns):
        return None
    return Recurrent(steps, directions, batch, size, columns, gates)


def lanes_of(found: Recurrent, target: Target) -> int:
    """Elements of one vector of the state: such as leave no tail."""
    even = even_part(found.columns, target.lanes())
    # Of a state that is too small to be filled up, LLVM makes an odd vector.
    return even if even >= LEAST_VECTOR else max(divisors(found.columns, 4 * target.lanes()))


class RecurrentSpace(SearchSpace):
    """The panel of columns and rows whose sums are open at once, unrolling, and what is shared.

    With ``share`` "directions" each thread goes in one direction, with "columns" the panels of a
    step are shared, which costs a fork and a join in each step.
    """

    name = "cpu.recurrent"
    version = 1
    priority = 40

    def matches(self, task: Task, target: Target) -> bool:
        found = recurrent_of(task.workload) if target.kind == "llvm" else None
        constants = task.workload.constants
        return found is not None and all(1 + i in constants for i in range(len(found.gates)))

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        found = _recurrent(task)
        options: dict[str, BaseDistribution] = {
            "vectors": CategoricalDistribution(_vectors(found, target)),
            "rows": CategoricalDistribution(divisors(found.batch, MAX_ROWS)),
            "unroll": CategoricalDistribution([u for u in (1, 2, 4, 8) if found.size % u == 0]),
        }
        shares = _shares(found, target)
        if len(shares) > 1:
            options["share"] = CategoricalDistribution(shares)
        return options

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        found = _recurrent(task)
        options = self.parameters(task, target)
        best: tuple[float, int, int, int] | None = None
        for vectors in _vectors(found, target):
            for rows in divisors(found.batch, MAX_ROWS):
                sums = _sums(found, target, rows, vectors)
                if sums + rows + 1 > target.vector_registers:
                    continue
                # As few readings of the weights as possible; then as few registers as hide latency.
                known = (float(rows), min(sums, ENOUGH_SUMS), -sums, vectors)
                best = known if best is None else max(best, known)
        rows, vectors = (1, 1) if best is None else (int(best[0]), best[3])
        chosen: dict[str, ParameterValue] = {"vectors": vectors, "rows": rows, "unroll": 1}
        if "share" in options:
            chosen["share"] = "none"
            if found.directions > 1:
                chosen["share"] = "directions"
            elif found.products > SHARED_ABOVE:
                chosen["share"] = "columns"
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        found = _recurrent(task)
        p = _checked(found, target, parameters)
        rows, vectors = int(p["rows"]), int(p["vectors"])
        panels = found.columns // (lanes_of(found, target) * vectors)
        share = p.get("share", "none")
        return {
            "rows": float(rows),
            "vectors": float(vectors),
            "unroll": float(p["unroll"]),
            "sums": float(_sums(found, target, rows, vectors)),
            "readings": found.batch / rows,
            "panels": float(panels),
            "panel_bytes": 4.0 * found.size * max(found.gates) * found.columns / panels,
            "by_direction": float(share == "directions"),
            "by_column": float(share == "columns"),
        }

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        found = _recurrent(task)
        p = _checked(found, target, parameters)
        RecurrentSchedule(schedule, found.gates, lanes_of(found, target), p).run()


def _recurrent(task: Task) -> Recurrent:
    found = recurrent_of(task.workload)
    if found is None:
        raise InvalidParameters(f"{task.workload.name} is no recurrence")
    return found


def _vectors(found: Recurrent, target: Target) -> list[int]:
    return divisors(found.columns // lanes_of(found, target), MAX_VECTORS)


def _shares(found: Recurrent, target: Target) -> list[str]:
    if target.threads < 2:
        return ["none"]
    return ["none", "columns", *(["directions"] if found.directions > 1 else [])]


def _sums(found: Recurrent, target: Target, rows: int, vectors: int) -> int:
    """Vector registers that the sums of a panel take."""
    registers = -(-lanes_of(found, target) // target.lanes())
    return rows * vectors * registers * max(found.gates)


def _checked(found: Recurrent, target: Target, p: Parameters) -> Parameters:
    rows, vectors = int(p["rows"]), int(p["vectors"])
    sums = _sums(found, target, rows, vectors)
    least = _sums(found, target, 1, 1)
    if sums >= target.vector_registers and sums > least:
        raise InvalidParameters(f"{rows} x {vectors} sums of {max(found.gates)} gates: too many")
    return p
