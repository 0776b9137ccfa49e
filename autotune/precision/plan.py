"""Which sums of a model are computed of shorter numbers, so that it stays within its budget.

All are as short as they can be at first. Where that loses too much, what costs the most accuracy
for the time that it saves is undone, until the budget holds (the errors of places are independent,
so their squares add up: what one loses alone is what it adds). Every mix is tried in a program that
computes any of them (``autotune.graph.probe``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from autotune.errors import InputError
from autotune.precision.budget import Budget
from autotune.precision.samples import Samples
from autotune.steps import Status, tell
from search_spaces.precisions import FULL, HALF, HALF_ALONE, SPLIT, WHOLE, Mix, kinds_of
from search_spaces.task import Target

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays, ImportedModel
    from autotune.graph.probe import Place, Probe
    from autotune.precision.evaluation import Evaluate

ALONE = 2
"""Samples that each place is tried on by itself."""

COPIED = 60
"""Operations that take about as long as storing a number in float32 beside bfloat16."""

REDONE = 8
"""Places that are tried once more in shorter numbers, after the budget holds."""

FASTER = 1.1
"""How many times as fast as float32 an instruction has to be to be worth its conversions."""


@dataclass(frozen=True)
class Step:
    """A place that becomes longer: to ``kind``, as a value of the place."""

    place: str
    kind: str


@dataclass(frozen=True)
class Plan:
    """``mix`` holds the budget by the samples that were seen, with ``error``.

    ``undo`` tells the steps that would lose less, those that help most for their time first.
    """

    mix: Mix
    error: float
    budget: Budget
    undo: Callable[[], Sequence[Step]] = field(repr=False, default=tuple)


@dataclass(frozen=True)
class Judge:
    """How much a model loses: of its outputs on samples, or of what the user's function says.

    What the original computes is computed once.
    """

    imported: ImportedModel
    budget: Budget
    evaluate: Evaluate | None
    samples: Samples

    def __post_init__(self) -> None:
        if (self.budget.kind == "metric") != (self.evaluate is not None):
            raise ValueError("a budget is of a metric where there is an evaluation function")

    @cached_property
    def right(self) -> list[Arrays]:
        """What the original makes of the samples that were seen."""
        return self._expected(self.samples.seen)

    def error(self, run: Callable[[Arrays], Arrays], held: bool = False) -> float:
        """What ``run`` loses on the samples that precision is chosen by, or on those ``held``."""
        if self.evaluate is not None:
            return max(0.0, self.value - self.evaluate(run))
        samples = self.samples.held if held else self.samples.seen
        right = self._held if held else self.right
        return self.budget.error(right, [run(sample) for sample in samples])

    @cached_property
    def value(self) -> float:
        """What the evaluation function says of the original."""
        assert self.evaluate is not None
        return self.evaluate(self.imported.reference)

    @cached_property
    def _held(self) -> list[Arrays]:
        return self._expected(self.samples.held)

    def _expected(self, samples: Sequence[Arrays]) -> list[Arrays]:
        return [self.imported.reference(sample) for sample in samples]


def offered(
    target: Target, wanted: Sequence[str], calibrated: bool, status: Status | None
) -> tuple[str, ...]:
    """The precisions besides float32 that ``target`` is faster in, the fastest first.

    ``wanted`` are those that the user named, none for all. Raises ``InputError`` where one of them
    is none, or needs samples of which there are none (not ``calibrated``).
    """
    from autotune.profile.peaks import product_peaks

    every = (WHOLE, HALF, SPLIT)
    unknown = [kind for kind in wanted if kind not in every]
    if unknown:
        raise InputError(f"there is no precision {unknown[0]!r}: choose among {', '.join(every)}")
    if WHOLE in wanted and not calibrated:
        raise InputError(
            "int8 is chosen by the range of real data: give samples of it with --calibration"
        )
    able = kinds_of(target)
    for kind in wanted:
        if kind not in able:
            tell(status, f"the target has no instructions for {kind}")
    kinds = [k for k in able if (k in wanted or not wanted) and (calibrated or k != WHOLE)]
    if not kinds:
        return ()
    peaks = product_peaks(target)
    speeds = {k: _speed(k, peaks) for k in kinds}
    kinds = [kind for kind in kinds if speeds[kind] > FASTER or kind in wanted]
    return tuple(sorted(kinds, key=lambda kind: -speeds[kind]))


def _speed(kind: str, peaks: dict[str, float]) -> float:
    """How many times as fast as float32."""
    ratio = peaks[HALF if kind == SPLIT else kind] / peaks[FULL]
    return ratio / 3 if kind == SPLIT else ratio


def planned(judge: Judge, target: Target, kinds: Sequence[str], status: Status | None) -> Plan:
    """The fastest mix of ``kinds`` (and float32) that was found within the budget.

    Raises ``InputError`` where float32 itself does not hold it.
    """
    from autotune.graph.probe import Probe

    probe, budget = Probe(judge.imported, target, kinds), judge.budget
    seen = judge.samples.seen
    tell(status, f"trying {', '.join(kinds)} on {len(seen)} samples")

    def error(mix: Mix) -> float:
        return judge.error(lambda sample: probe.outputs(mix, sample))

    full = error({})
    if full > budget.limit:
        raise InputError(
            f"the accuracy budget {budget} cannot be met: in float32 the model loses {full:.3g} "
            "already, so allow more than that"
        )
    if not probe.places:
        return Plan({}, full, budget)
    probe.watch(seen)
    mix = {name: probe.value(name, kinds[0]) for name in probe.places}
    lost = error(mix)
    if lost <= budget.limit:
        return Plan(mix, lost, budget, lambda: _steps(probe, judge))
    steps = _steps(probe, judge)

    # The fewest steps that are enough: the more are taken the less is lost, but for luck.
    low, high = 0, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(_after(mix, steps[:middle])) <= budget.limit else (
            middle, high
        )  # fmt: skip
    taken = steps[:high]
    found = _after(mix, taken)
    lost = error(found)
    # What was undone last was the least of it: some of that may stay.
    for step in taken[::-1][1 : REDONE + 1]:
        if any(one.place == step.place for one in taken[taken.index(step) + 1 :]):
            continue  # it went on from there
        others = [one for one in taken if one is not step]
        other = _after(mix, others)
        if (less := error(other)) <= budget.limit:
            taken, found, lost = others, other, less
    rest = [step for step in steps if step not in taken]
    return Plan(found, lost, budget, lambda: rest)


def _outputs(budget: Budget) -> Budget:
    """How places are compared with each other: by outputs, also where the budget is of a metric."""
    return Budget("relative", 0.0) if budget.kind in ("metric", "cosine") else budget


def _after(mix: Mix, steps: Sequence[Step]) -> Mix:
    """``mix`` once ``steps`` are taken."""
    made = {**mix, **{step.place: step.kind for step in steps}}
    return {name: kind for name, kind in made.items() if kind != FULL}


def _steps(probe: Probe, judge: Judge) -> list[Step]:
    """Every step from the shortest numbers to float32, what gains most for its time first."""
    budget = _outputs(judge.budget)
    samples, right = judge.samples.seen[:ALONE], judge.right[:ALONE]

    def squared(mix: Mix) -> float:
        return budget.error(right, [probe.outputs(mix, sample) for sample in samples]) ** 2

    floor = squared({})
    found: list[tuple[float, int, Step]] = []
    for name, place in probe.places.items():
        ways = [
            Way(value, cost, max(0.0, squared({name: value}) - floor))
            for value, cost in _values(probe, name, place)
        ]
        exact = Way(FULL, len(probe.kinds) * place.flops + place.elements * COPIED, 0.0)
        for number, (before, after) in enumerate(pairwise(worthwhile([*ways, exact]))):
            gained = (before.loss - after.loss) / (after.cost - before.cost)
            found.append((gained, -number, Step(name, after.value)))
    return [step for _, _, step in sorted(found, key=lambda one: one[:2], reverse=True)]


def _values(probe: Probe, name: str, place: Place) -> Iterator[tuple[str, float]]:
    """What a place may be but float32, the fastest first, and in operations what it costs more."""
    cost = 0.0
    for kind in probe.kinds:
        yield probe.value(name, kind), cost
        if kind == HALF and place.shared:
            yield HALF_ALONE, cost + place.elements * COPIED
        cost += place.flops


@dataclass(frozen=True)
class Way:
    """A value of a place, what it costs beyond the fastest one, and what is lost by it."""

    value: str
    cost: float
    loss: float


def worthwhile(ways: Sequence[Way]) -> list[Way]:
    """Those of ``ways`` from the cheapest to the dearest that gain ever less for their cost.

    What gains less for its cost than a later one does is left out: the lower convex hull.
    """
    kept: list[Way] = []
    for way in sorted({way.cost: way for way in ways}.values(), key=lambda way: way.cost):
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-2], way):
            kept.pop()
        kept.append(way)
    return kept


def _slope(one: Way, other: Way) -> float:
    """What is gained from ``one`` to ``other`` for what it costs."""
    return (one.loss - other.loss) / (other.cost - one.cost)
