"""The contract of a runner: candidates go in, outcomes come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from autotune.errors import AutotuneError
from autotune.measure.outcome import Outcome
from search_spaces.task import Candidate, Target, Task


@dataclass(frozen=True)
class Limits:
    """What one candidate may use: seconds to schedule and build, to run, and bytes of memory."""

    build_seconds: float = 10.0
    run_seconds: float = 10.0
    memory_bytes: int = 8 << 30


@dataclass(frozen=True)
class Measurement:
    """A candidate's outcome, with the trace of the schedule that was measured.

    ``trace`` is TVM's trace as JSON text ("" where no schedule was made), from which the same
    schedule is made again without the space. ``seconds`` is what each stage took
    ("schedule", "build", "verify", "run"). ``drift_seconds`` is what a fixed kernel took just
    before and after, the slower of both: it tells a disturbed machine. None: not known.
    ``module`` is a digest of what was built, "" where that is not known. ``same_as`` is the key of
    a candidate that made the same module, from which the outcome was taken; "" for a measurement.
    """

    candidate: Candidate
    outcome: Outcome
    trace: str
    seconds: dict[str, float]
    drift_seconds: float | None = None
    module: str = ""
    same_as: str = ""


class TaskNotMeasurable(AutotuneError):
    """No candidate of this task can be judged, since its reference cannot be computed.

    The text says why. The caller sets the task aside and goes on with the others.
    """


class Runner(ABC):
    """Builds, runs and verifies candidates of one target. A context manager: it owns processes.

    A candidate that crashes, hangs or is wrong is an outcome; ``run`` raises only for faults of
    the runner itself (``autotune.errors.TargetError`` where the target cannot be measured here,
    ``TaskNotMeasurable`` where a task has no reference to compare with).
    """

    target: Target
    parallel: int = 1
    """How many candidates are measured at a time: that many at least are asked for together."""
    keeps: bool = False
    """Whether a candidate that is measured several times in a row is built once."""

    @abstractmethod
    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Yield one measurement for each candidate, in any order, each as soon as it is known.

        The caller records a measurement before it asks for the next one.
        """

    def forget(self, task: Task) -> None:  # noqa: B027  (a runner may have nothing to forget)
        """Measure the next candidates of ``task`` in full, however slow they are.

        For comparisons: a runner may otherwise stop early with what is clearly slower than before.
        """

    def remember(  # noqa: B027  (a runner may measure everything)
        self, task: Task, measurements: Iterable[Measurement]
    ) -> None:
        """Take what earlier runs measured of ``task``: a candidate that makes the same module as
        one of those need not be measured."""

    @abstractmethod
    def close(self) -> None:
        """End every process. Called once; safe to call again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
