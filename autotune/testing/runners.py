"""A runner without a compiler, to test searches, samplers and spaces against a known answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autotune.measure.base import Measurement, Runner
from autotune.measure.outcome import Measured, Outcome
from search_spaces.task import Candidate, Target, Task


class AnalyticRunner(Runner):
    """Measures by a formula: ``latency(task, candidate)`` gives seconds, or a failed outcome.

    For authors of spaces, samplers and cost models: a search on this runner takes milliseconds and
    its best candidate is known. ``noise`` is the relative standard deviation of the samples, drawn
    in a sequence fixed by ``seed``. ``measured`` lists every call in order.
    """

    def __init__(
        self,
        target: Target,
        latency: Callable[[Task, Candidate], float | Outcome],
        *,
        noise: float = 0.0,
        samples: int = 5,
        seed: int = 0,
    ) -> None:
        import numpy as np

        self.target = target
        self.latency = latency
        self.noise = noise
        self.samples = samples
        self.measured: list[tuple[Task, Candidate]] = []
        self.closed = False
        self._rng = np.random.default_rng(seed)

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Yield the formula's answer for each candidate, in order."""
        for candidate in candidates:
            self.measured.append((task, candidate))
            found = self.latency(task, candidate)
            yield Measurement(candidate, self._outcome(found), "", {"run": 0.0})

    def _outcome(self, found: float | Outcome) -> Outcome:
        if not isinstance(found, float | int):
            return found
        factors = 1.0 + self.noise * abs(self._rng.standard_normal(self.samples))
        samples = tuple(float(found * factor) for factor in factors)
        return Measured(min(samples), samples, 0.0, 1e-5)

    def close(self) -> None:
        """Nothing to end; noted in ``closed``."""
        self.closed = True
