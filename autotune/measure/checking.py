"""Whether a kernel may be believed: it stays inside its tensors, repeats itself, and is right."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.measure.data import Array, inputs_of, make_inputs, outputs_of
from autotune.measure.guard import Allocate, Buffer, Guarded
from autotune.measure.kernel import Kernel
from autotune.measure.reference import Draw
from autotune.measure.verify import Comparison, compare_outputs, tolerance_of
from search_spaces.task import Task

_MORE_RUNS = 3
"""Runs on each further draw: a winner is asked more often whether it repeats itself."""

_LONG_SECONDS = 1.0
"""A kernel as slow as this is run once for a check, and after so long no other draw is begun."""
_HELD_UP_SECONDS = 0.05
"""A hopeless execution may be the work of another process if it was shorter than this."""


@dataclass
class Given:
    """The inputs of one draw and what is to be computed from them."""

    inputs: list[Buffer]
    sums: list[int]
    expected: list[Array]


class Draws:
    """The draws of one task, each made when it is first needed and kept."""

    def __init__(
        self,
        task: Task,
        names: tuple[Draw, ...],
        expected: Callable[[int], list[Array]],
        allocate: Allocate = Guarded,
    ) -> None:
        """``expected(i)`` reads the reference outputs for ``names[i]``.

        ``allocate`` makes tensors where the kernel runs.
        """
        self.task = task
        self.names = names
        self.tolerance = tolerance_of(task.workload)
        self.allocate = allocate
        self._expected = expected
        self._made: dict[int, Given] = {}

    def __getitem__(self, index: int) -> Given:
        if index not in self._made:
            draw, work = self.names[index], self.task.workload
            arrays = make_inputs(work, draw.variant, draw.seed)
            kinds = inputs_of(work)
            inputs = [self.allocate(kind) for kind in kinds]
            for tensor, array in zip(inputs, arrays, strict=True):
                tensor.fill(array)
            sums = [tensor.checksum() for tensor in inputs]
            self._made[index] = Given(inputs, sums, self._expected(index))
        return self._made[index]


@dataclass
class Checked:
    """A kernel that passed on the first draw: ``arguments`` are ready for timing.

    ``seconds`` is what its first execution took, which also paid for touching its memory, or the
    second one, where that was made and was faster.
    ``again()`` is to be called after the timing: the last of those many runs must have left the
    same bits. ``further()`` checks the kernel on every other draw: for one that could win.
    """

    comparison: Comparison
    seconds: float
    arguments: list[Any] = field(repr=False)
    again: Callable[[], Comparison] = field(repr=False)
    further: Callable[[], Comparison] = field(repr=False)


def check(kernel: Kernel, draws: Draws, hopeless: float = math.inf) -> Checked:
    """Run ``kernel`` twice on the first draw. Where it is not right, the comparison says why.

    One whose first execution takes more than ``hopeless`` seconds is not run again.
    """
    results = [draws.allocate(kind) for kind in outputs_of(draws.task.workload)]
    # A kernel that is wrong may have written anywhere: these are looked at, too.
    packed: list[Buffer] = []
    arguments = _arguments(kernel, draws, 0, results, packed)
    comparison, bits, seconds = _runs(kernel, draws, 0, arguments, results, packed, 2, hopeless)

    def again() -> Comparison:
        fault = _strays(draws[0], results, packed)
        if not fault and [r.bits() for r in results] != bits:
            fault = "it computed something else on a later run on the same inputs: a race"
        return _wrong(draws, fault) if fault else comparison

    def further() -> Comparison:
        worst, started = comparison, time.monotonic()
        for index, draw in list(enumerate(draws.names))[1:]:
            if time.monotonic() - started > _LONG_SECONDS:
                break
            packed.clear()
            prepared = _arguments(kernel, draws, index, results, packed)
            found, _, _ = _runs(kernel, draws, index, prepared, results, packed, _MORE_RUNS)
            if not found.right:
                message = f"{found.message} (on {_named(draws.names, draw)})"
                return Comparison(found.error, found.tolerance, message)
            worst = max(worst, found, key=lambda one: one.error)
        return worst

    return Checked(comparison, seconds, arguments, again, further)


def _arguments(
    kernel: Kernel, draws: Draws, index: int, results: list[Buffer], packed: list[Buffer]
) -> list[Any]:
    def allocate(kind: Any) -> Any:
        packed.append(draws.allocate(kind))
        return packed[-1].tensor

    return kernel.pack([t.tensor for t in (*draws[index].inputs, *results)], allocate)


def _runs(
    kernel: Kernel,
    draws: Draws,
    index: int,
    arguments: list[Any],
    results: list[Buffer],
    packed: list[Buffer],
    count: int,
    hopeless: float = math.inf,
) -> tuple[Comparison, list[bytes], float]:
    """Run ``count`` times on the same inputs; compare the runs, then the result.

    Also returns the bits of the result and the seconds of the fastest run.
    """
    bits: list[bytes] = []
    given = draws[index]
    first = 0.0
    started = time.monotonic()
    for turn in range(count):
        long = time.monotonic() - started
        # A short one is run again all the same: it may only have been held up.
        if turn and (long > _LONG_SECONDS or (first > hopeless and long > _HELD_UP_SECONDS)):
            break
        for result in results:
            result.poison()
        begun = time.perf_counter()
        kernel.function(*arguments)
        spent = time.perf_counter() - begun
        first = min(first, spent) if turn else spent
        fault = _strays(given, results, packed)
        found = [result.bits() for result in results]
        if not fault and turn and found != bits:
            fault = (
                "two runs on the same inputs differ: a race, or memory that was read before it "
                "was written"
            )
        if fault:
            return _wrong(draws, fault), bits, first
        bits = found
    arrays = [r.array for r in results]
    found_right = compare_outputs(draws.task.workload, arrays, given.expected, draws.tolerance)
    return found_right, bits, first


def _strays(given: Given, results: list[Buffer], packed: list[Buffer]) -> str:
    """What was written that is none of the kernel's business; "" where nothing was."""
    for position, result in enumerate(results):
        if not result.intact:
            return f"it writes outside of output {position}"
    for position, (tensor, before) in enumerate(zip(given.inputs, given.sums, strict=True)):
        if not tensor.intact:
            return f"it writes outside of input {position}"
        if tensor.checksum() != before:
            return f"it writes to input {position}"
    if not all(tensor.intact for tensor in packed):
        return "it writes outside of a packed weight"
    return ""


def _wrong(draws: Draws, message: str) -> Comparison:
    return Comparison(math.inf, draws.tolerance, message)


def _named(names: tuple[Draw, ...], draw: Draw) -> str:
    return "fresh inputs" if draw.variant == names[0].variant else f"{draw.variant} inputs"


def draws_from(message: Sequence[Mapping[str, Any]]) -> tuple[Draw, ...]:
    """The draws that were told as JSON-able values."""
    return tuple(Draw(entry["variant"], entry["seed"]) for entry in message)
