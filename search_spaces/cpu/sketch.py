"""TVM's own sketch rules as a search space, for whatever they match.

Decisions that all designs share are parameters of their own. Those that only some designs have are
folded into the choice of the design, so that each parameter always means something: no two
candidates make the same schedule because they differ in a value that nothing reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from math import gcd, log2, prod
from typing import TYPE_CHECKING, Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.designs import (
    Decision,
    Designs,
    Slot,
    decided,
    designs_of,
    sketches_of,
)
from search_spaces.task import Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_VALUES = 256
"""Values of one parameter: large extents have thousands of factorisations."""

MAX_HEADS = 1024
"""Choices of the parameter "design"."""

PARALLEL_ABOVE = 40_000
"""Operations above which starting the threads is worth it, by default."""

_ANNOTATION = "meta_schedule.parallel"


class SketchSpace(SearchSpace):
    """Designs of TVM's rules: multi-level tiles, partial reductions, places, unrolling."""

    name = "cpu.sketch"
    version = 1
    priority = -5
    compiles = True

    def matches(self, task: Task, target: Target) -> bool:
        if target.kind != "llvm":
            return False
        work = task.workload
        if work.blocks and not any(block.reduction for block in work.blocks):
            return False  # the rules leave nothing open there: not worth asking them
        return sketches_of(work.key, work.function, target).open

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        plan = _plan(task, target)
        counts = {"design": len(plan.heads)}
        counts.update((name, len(values)) for name, values, _ in plan.shared)
        found: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(range(count)))
            for name, count in counts.items()
            if count > 1
        }
        if plan.parallel:
            found["parallel"] = CategoricalDistribution([True, False])
        if plan.found.packs:
            found["pack"] = CategoricalDistribution([True, False])
        return found

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        plan = _plan(task, target)
        chosen: dict[str, ParameterValue] = dict(plan.default)
        if plan.parallel:
            chosen["parallel"] = max(task.flops, task.bytes / 4) > PARALLEL_ABOVE
        if plan.found.packs:
            chosen["pack"] = True
        return chosen

    def features(self, task: Task, target: Target, parameters: Parameters) -> dict[str, float]:
        plan = _plan(task, target)
        design, decisions = plan.decode(parameters)
        found: dict[str, float] = {
            "design": float(design),
            "parallel": float(bool(parameters.get("parallel", False))),
            "pack": float(bool(parameters.get("pack", False))),
        }
        slots = plan.found.designs[design].slots
        levels = {"chunks": 0.0, "cached": 0.0, "registers": 0.0, "depth": 0.0}
        for name, slot, decision in zip(_names(slots), slots, decisions, strict=True):
            if slot.kind == "choice":
                assert isinstance(decision, int)
                found[name] = float(slot.meanings[decision])
            elif isinstance(decision, int):
                found[name] = float(decision)
            else:
                logs = [log2(factor) for factor in decision]
                found.update((f"{name}.{level}", value) for level, value in enumerate(logs))
                if len(decision) == 4:
                    levels["chunks"] += logs[0]
                    levels["cached"] += logs[2] + logs[3]
                    levels["registers"] += logs[3]
                else:
                    levels["depth"] += logs[-1]
                if name == "tile0":
                    found["vector_tail"] = float(decision[-1] % target.lanes())
        return {**found, **levels}

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        from tvm.s_tir.meta_schedule import postproc

        plan = _plan(task, target)
        number, decisions = plan.decode(parameters)
        design = plan.found.designs[number]
        design.trace(decisions).apply_to_schedule(schedule, remove_postproc=True)
        _check_taken(schedule, design.slots, decisions)
        root = schedule.get_sblock("root")
        if plan.parallel and not parameters.get("parallel", True):
            schedule.unannotate(root, _ANNOTATION)
        schedule.enter_postproc()
        for step in postproc.Postproc.create("llvm"):
            if isinstance(step, postproc.RewriteLayout) and not parameters.get("pack", False):
                continue
            if not step.apply(schedule):
                raise InvalidParameters(f"TVM's {type(step).__name__} refuses this schedule")


@dataclass(frozen=True)
class Plan:
    """How parameters stand for decisions.

    ``heads`` are the choices of "design": a design and its own decisions. ``shared`` are the other
    parameters by name, with the decisions that their values stand for and the place of the slot in
    each design.
    """

    found: Designs
    heads: tuple[tuple[int, tuple[tuple[int, Decision], ...]], ...]
    shared: tuple[tuple[str, tuple[Decision, ...], tuple[int, ...]], ...]
    default: tuple[tuple[str, int], ...]
    parallel: bool

    def decode(self, parameters: Parameters) -> tuple[int, list[Decision]]:
        """The design and a decision for each of its slots; raises ``InvalidParameters``."""
        design, own = self.heads[_index(parameters, "design", len(self.heads))]
        places = dict(own)
        for name, values, slots in self.shared:
            places[slots[design]] = values[_index(parameters, name, len(values))]
        decisions = [places[place] for place in range(len(places))]
        _check_places(self.found.designs[design].slots, decisions)
        return design, decisions


def _index(parameters: Parameters, name: str, count: int) -> int:
    value = parameters.get(name, 0) if count == 1 else parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise InvalidParameters(f"{name} is {value!r}, not an index below {count}")
    return value


def _plan(task: Task, target: Target) -> Plan:
    work = task.workload
    plan = _plan_of(work.key, work.function, target)
    if not plan.heads:
        failure = sketches_of(work.key, work.function, target).failure
        raise InvalidParameters(f"TVM's rules make no design of {work.name}: {failure or 'none'}")
    return plan


@lru_cache(maxsize=1024)
def _plan_of(key: str, function: str, target: Target) -> Plan:
    found = designs_of(key, function, target)
    slots = [design.slots for design in found.designs]
    if not slots:
        return Plan(found, (), (), (), False)
    alike = len({tuple(slot.kind for slot in own) for own in slots}) == 1
    marks = [_signatures(own, alike) for own in slots]
    guesses = [[_guess(own, place, target) for place in range(len(own))] for own in slots]
    last = len(slots) - 1  # the rules offer what is simplest, or stores registers most often, last
    names = _names(slots[last])
    shared = []
    default: list[tuple[str, int]] = []
    for place, mark in enumerate(marks[last]):
        if not all(mark in own for own in marks):
            continue
        at = tuple(own.index(mark) for own in marks)
        every = _union([own[i] for own, i in zip(slots, at, strict=True)])
        values = _thin(every, MAX_VALUES, [guesses[last][place]])
        shared.append((names[place], values, at))
        if len(values) > 1:
            default.append((names[place], values.index(guesses[last][place])))
    heads: list[tuple[int, tuple[tuple[int, Decision], ...]]] = []
    for number, own in enumerate(slots):
        taken = {at[number] for _, _, at in shared}
        left = [place for place in range(len(own)) if place not in taken]
        guess = tuple(guesses[number][place] for place in left)
        options = [own[place].values for place in left]
        for choice in _spread(options, MAX_HEADS // len(slots), guess):
            if number == last and choice == guess:
                default.append(("design", len(heads)))
            heads.append((number, tuple(zip(left, choice, strict=True))))
    if len(heads) == 1:
        default = [(name, value) for name, value in default if name != "design"]
    parallel = all(design.parallel for design in found.designs)
    return Plan(found, tuple(heads), tuple(shared), tuple(sorted(default)), parallel)


def _signatures(slots: Sequence[Slot], alike: bool) -> list[tuple[Any, ...]]:
    """What makes slots of two designs the same decision: kind, values, and which one of those."""
    seen: Counter[Any] = Counter()
    marks = []
    for slot in slots:
        # Where designs differ in nothing else, the same block is placed: only loops come and go.
        mark = (slot.kind,) if slot.kind == "location" and alike else (slot.kind, slot.values)
        marks.append((*mark, seen[mark]))
        seen[mark] += 1
    return marks


def _union(slots: Sequence[Slot]) -> tuple[Decision, ...]:
    """Values of a shared slot: designs that are alike may still differ in possible locations."""
    if slots[0].kind != "location":
        return slots[0].values
    return tuple(sorted({_int(value) for slot in slots for value in slot.values}))


def _names(slots: Sequence[Slot]) -> list[str]:
    """Names counted from the innermost, so that "tile0" is the contiguous axis in every task."""
    seen: Counter[str] = Counter()
    names = []
    for slot in reversed(slots):
        sort = {"choice": "unroll", "location": "place", "tile": "tile"}[slot.kind]
        if slot.kind == "tile" and isinstance(slot.values[0], tuple) and len(slot.values[0]) == 2:
            sort = "depth"
        names.append(f"{sort}{seen[sort]}")
        seen[sort] += 1
    return names[::-1]


def _guess(slots: Sequence[Slot], place: int, target: Target) -> Decision:
    """A decision that is seldom bad: two vectors by a few rows, short inner reductions."""
    slot = slots[place]
    if slot.kind == "choice":
        return next((i for i in slot.values if slot.meanings[_int(i)] == 64), slot.values[-1])
    if slot.kind == "location":
        return -1 if -1 in slot.values else slot.values[0]
    tiles = [value for value in slot.values if isinstance(value, tuple)]
    extent = prod(tiles[0])
    if len(tiles[0]) != 4:
        inner = target.lanes() if not any(_wide(other) for other in slots) else 4
        return min(tiles, key=lambda tile: (abs(log2(tile[-1] / inner)), tile))
    own = [i for i, other in enumerate(slots) if _wide(other) and _extent(other) > 1]
    lanes = target.lanes()
    if not own or place == own[-1]:
        wanted = (1, 4, 1, 2 * lanes)
    elif place == own[-2 if len(own) > 1 else -1]:
        wanted = (1, 4, 1, 4)
    else:
        wanted = (extent, 1, 1, 1)
    whole = 0 if wanted[3] % lanes else lanes

    def cost(tile: tuple[int, ...]) -> tuple[float, ...]:
        inner = 4 * abs(log2(tile[3] / wanted[3])) + (whole > 0 and tile[3] % whole > 0)
        return (inner + abs(log2(tile[2])) + 0.5 * abs(log2(tile[1] / wanted[1])), *tile)

    return min(tiles, key=cost)


def _wide(slot: Slot) -> bool:
    return slot.kind == "tile" and isinstance(slot.values[0], tuple) and len(slot.values[0]) == 4


def _extent(slot: Slot) -> int:
    return prod(slot.values[0]) if isinstance(slot.values[0], tuple) else 1


def _int(decision: Decision) -> int:
    assert isinstance(decision, int)
    return decision


def _thin(values: Sequence[Decision], limit: int, keep: Iterable[Decision]) -> tuple[Decision, ...]:
    """At most ``limit`` of ``values``, evenly spaced, in their order, with those to ``keep``."""
    if len(values) <= limit:
        return tuple(values)
    wanted = {values.index(value) for value in keep}
    room = limit - len(wanted)
    wanted |= {i * len(values) // room for i in range(room)}
    return tuple(values[i] for i in sorted(wanted))


def _spread(
    options: Sequence[Sequence[Decision]], limit: int, keep: tuple[Decision, ...]
) -> list[tuple[Decision, ...]]:
    """At most ``limit`` combinations of ``options``, spread over all of them, with ``keep``."""
    total = prod(len(values) for values in options)
    if total <= limit:
        return list(product(*options))
    step = round(total * 0.6180339887)  # the golden ratio: no digit repeats with a short period
    while gcd(step, total) != 1:
        step += 1
    kept = 0
    for values, value in zip(options, keep, strict=True):
        kept = kept * len(values) + values.index(value)
    numbers = {kept, *islice(((i * step) % total for i in range(limit)), limit - 1)}
    return [_combination(options, number) for number in sorted(numbers)]


def _combination(options: Sequence[Sequence[Decision]], number: int) -> tuple[Decision, ...]:
    found: list[Decision] = []
    for values in reversed(options):
        number, digit = divmod(number, len(values))
        found.append(values[digit])
    return tuple(found[::-1])


def _check_places(slots: Sequence[Slot], decisions: Sequence[Decision]) -> None:
    """Refuse a location at a loop of one iteration, where that is known without TVM.

    So it is for one producer of a multi-level tile, whose loops come in the order SSRSRS.
    """
    places = [place for place, slot in enumerate(slots) if slot.kind == "location"]
    if len(places) != 1:
        return
    tiles = [value for value in decisions if isinstance(value, tuple)]
    spatial = [tile for tile in tiles if len(tile) == 4]
    reduced = [tile for tile in tiles if len(tile) == 2]
    levels = ((spatial, 0), (spatial, 1), (reduced, 0), (spatial, 2), (reduced, 1), (spatial, 3))
    loops = [tile[level] for group, level in levels for tile in group]
    at = _int(decisions[places[0]])
    if spatial and 0 <= at < len(loops) and loops[at] == 1:
        raise InvalidParameters(f"location {at} is a loop of one iteration")


def _check_taken(schedule: Any, slots: Sequence[Slot], decisions: Sequence[Decision]) -> None:
    """TVM repairs a decision that does not fit, silently: refuse, since another candidate is it."""
    trace = schedule.trace
    made = [decided(inst, trace) for inst in trace.insts if inst in trace.decisions]
    for slot, wanted, taken in zip(slots, decisions, made[-len(slots) :], strict=True):
        if wanted != taken:
            raise InvalidParameters(f"{slot.kind} {wanted} does not exist here; TVM takes {taken}")
