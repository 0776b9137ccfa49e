"""What TVM's sketch rules make of a workload, as plain lists of choices.

The rules (PostOrderApply of MetaSchedule; Shao et al., "Tensor program optimization with
probabilistic programs", 2022) give a few designs, each a trace with sampling instructions left
open. Here each open decision becomes a slot with a fixed list of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

from search_spaces.light import light_import
from search_spaces.task import Target

Decision = int | tuple[int, ...]

SEED = 42
"""TVM samples while it applies the rules; what it samples is replaced, but shapes the probe."""

_RULES = "llvm"
_INNERMOST = 1 << 20
"""A location further in than any: TVM answers with the innermost one that is possible."""


@dataclass(frozen=True)
class Slot:
    """One open decision: ``values`` are what TVM's instruction takes.

    ``kind`` is "tile" (factors of an extent, outermost first), "choice" (index into ``meanings``)
    or "location" (loop to compute a block at; -1 is the root, -2 inlines it).
    """

    kind: str
    values: tuple[Decision, ...]
    meanings: tuple[int, ...] = ()


@dataclass(frozen=True)
class Design:
    """A trace of TVM with its open decisions, in the order of their instructions."""

    slots: tuple[Slot, ...]
    instructions: tuple[Any, ...] = field(repr=False, compare=False)
    sampling: tuple[Any, ...] = field(repr=False, compare=False)
    parallel: bool

    def trace(self, decisions: Sequence[Decision]) -> Any:
        """The trace with every decision made; ``decisions`` has one for each slot."""
        from tvm.s_tir.schedule import Trace

        made = dict(zip(self.sampling, map(_for_tvm, decisions), strict=True))
        return Trace(list(self.instructions), made)


@dataclass(frozen=True)
class Designs:
    """All designs of a workload; ``packs`` says whether there are weights to lay out."""

    designs: tuple[Design, ...]
    packs: bool


@dataclass(frozen=True)
class Sketches:
    """What the rules made: traces of ``module``, or what they raised, in ``failure``."""

    module: Any = field(repr=False)
    traces: tuple[Any, ...] = field(default=(), repr=False)
    failure: str = ""

    @property
    def open(self) -> bool:
        """Whether anything is left to decide."""
        return any(len(trace.decisions) > 0 for trace in self.traces)


@lru_cache(maxsize=1024)
def sketches_of(key: str, function: str, target: Target) -> Sketches:
    """Apply the rules to a workload, given by its key and text; done once in each process.

    Never raises for what the rules do: a workload that they cannot take has no trace.
    """
    light_import()
    import tvm
    from tvm.s_tir import meta_schedule

    module = tvm.ir.load_json(function)
    try:
        with tvm.target.Target(target.tvm()) as context:
            # Rules by name: those that TVM would derive from the target use intrinsics for int8
            # that its LLVM does not take. Threads by number: to count them takes psutil.
            generator = meta_schedule.space_generator.PostOrderApply(
                sch_rules=_rules(), postprocs=_RULES, mutator_probs=_RULES
            )
            made = meta_schedule.TuneContext(
                module, target=context, space_generator=generator, rand_state=SEED, num_threads=1
            ).generate_design_space()
    except Exception as error:  # the rules raise whatever TVM does
        return Sketches(module, failure=f"{type(error).__name__}: {error}"[:600])
    return Sketches(module, tuple(schedule.trace for schedule in made))


@lru_cache(maxsize=1024)
def designs_of(key: str, function: str, target: Target) -> Designs:
    """The designs of a workload with their slots; made once in each process."""
    import tvm

    found = sketches_of(key, function, target)
    with tvm.target.Target(target.tvm()):
        kinds = {tuple(inst.kind.name for inst in _sampling(trace)) for trace in found.traces}
        # TVM tries each location, in milliseconds. Designs that decide on the same things differ
        # in where they keep the result, not in where its producers may be: one of them is asked.
        asked = _locations(found.module, found.traces[-1]) if len(kinds) == 1 else None
        designs = tuple(_design(found.module, trace, asked) for trace in found.traces)
    constants = (found.module["main"].attrs or {}).get("layout_free_buffers", ())
    return Designs(designs, packs=len(constants) > 0)


def _rules() -> list[Any]:
    """TVM's rules for any CPU, less the one that only looks for rules registered by operators.

    It warns on stderr for each block that names a rule which nobody registered.
    """
    from tvm.s_tir.meta_schedule import schedule_rule

    rules = schedule_rule.ScheduleRule.create(_RULES)
    return [rule for rule in rules if not isinstance(rule, schedule_rule.ApplyCustomRule)]


def factorisations(extent: int, levels: int, innermost: int) -> Iterator[tuple[int, ...]]:
    """All ways to write ``extent`` as a product of ``levels`` factors.

    The last is at most ``innermost``, unless that is negative. Ordered by the innermost factor,
    then the one before it, and so on.
    """
    if levels == 1:
        yield (extent,)
        return
    for factor in divisors(extent):
        if factor > innermost >= 0:
            break
        for outer in factorisations(extent // factor, levels - 1, -1):
            yield (*outer, factor)


@lru_cache(maxsize=4096)
def _richest(extent: int, levels: int, innermost: int) -> tuple[int, ...]:
    """The factorisation with the fewest ones."""
    return min(factorisations(extent, levels, innermost), key=lambda tile: (tile.count(1), tile))


@lru_cache(maxsize=4096)
def divisors(value: int) -> tuple[int, ...]:
    """The divisors of ``value``, ascending."""
    small = [d for d in range(1, int(value**0.5) + 1) if value % d == 0]
    return tuple(sorted({*small, *(value // d for d in small)}))


def _sampling(trace: Any) -> tuple[Any, ...]:
    return tuple(inst for inst in trace.insts if inst in trace.decisions)


def _design(module: Any, trace: Any, asked: list[tuple[int, ...]] | None) -> Design:
    """Read the open decisions of ``trace``; ``asked`` are its locations, where they are known."""
    sampling = _sampling(trace)
    locations = iter(_locations(module, trace) if asked is None else asked)
    slots: list[Slot] = []
    for instruction in sampling:
        kind = instruction.kind.name
        if kind == "SamplePerfectTile":
            levels, innermost = (int(value) for value in instruction.attrs)
            factors = decided(instruction, trace)
            assert isinstance(factors, tuple)
            slots.append(Slot("tile", tuple(factorisations(prod(factors), levels, innermost))))
        elif kind == "SampleCategorical":
            meanings = tuple(int(value) for value in instruction.attrs[0])
            slots.append(Slot("choice", tuple(range(len(meanings))), meanings))
        elif kind == "SampleComputeLocation":
            slots.append(Slot("location", next(locations)))
        else:
            raise NotImplementedError(f"sampling instruction {kind}")
    return Design(
        slots=tuple(slots),
        instructions=tuple(trace.insts),
        sampling=sampling,
        parallel=any(
            inst.kind.name == "Annotate" and str(inst.attrs[0]) == "meta_schedule.parallel"
            for inst in trace.insts
        ),
    )


def _locations(module: Any, trace: Any) -> list[tuple[int, ...]]:
    """For each location to decide, those that TVM takes as they are.

    It skips loops of one iteration, so ``trace`` is replayed with tiles that have few of those.
    """
    from tvm import s_tir

    if not any(inst.kind.name == "SampleComputeLocation" for inst in _sampling(trace)):
        return []
    scratch = s_tir.Schedule(module, debug_mask=0, error_render_level="none", seed=SEED)
    found: list[tuple[int, ...]] = []

    def ask(block: Any, wanted: int) -> int:
        scratch.sample_compute_location(block, decision=wanted)
        answer = decided(scratch.trace.insts[-1], scratch.trace)
        assert isinstance(answer, int)
        return answer

    def read(instruction: Any, inputs: Any, attributes: Any, decision: Any) -> Any:
        if instruction.kind.name == "SampleComputeLocation":
            # What is not possible is answered by the next one further out.
            answer = ask(inputs[0], _INNERMOST)
            values = {answer}
            while answer >= 0:
                answer = ask(inputs[0], answer - 1)
                values.add(answer)
            if ask(inputs[0], -2) == -2:
                values.add(-2)
            found.append(tuple(sorted(values)))
        elif instruction.kind.name == "SamplePerfectTile":
            levels, innermost = (int(value) for value in attributes)
            factors = [int(factor) for factor in decision]
            return list(_richest(prod(factors), levels, innermost))
        return decision

    trace.apply_to_schedule(scratch, remove_postproc=True, decision_provider=read)
    return found


def decided(instruction: Any, trace: Any) -> Decision:
    """The decision on ``instruction`` in ``trace``, as Python's own numbers."""
    value = trace.get_decision(instruction)
    return value if isinstance(value, int) else _plain(value)


def _plain(value: Any) -> Decision:
    if hasattr(value, "value"):
        return int(value.value)
    return tuple(int(item) for item in value)


def _for_tvm(decision: Decision) -> Any:
    return decision if isinstance(decision, int) else list(decision)
