"""What runners with workers have in common: candidates are judged in processes that may die.

Whether the code runs there or on a device is for the runners themselves.
"""

from __future__ import annotations

import contextlib
import signal
import time
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from autotune.errors import AutotuneError
from autotune.measure import wire
from autotune.measure.base import Limits, Measurement, Runner, TaskNotMeasurable
from autotune.measure.expected import Reference
from autotune.measure.outcome import Crashed, Measured, Outcome, TimedOut, WrongResult
from autotune.measure.process import LimitPassed, WorkerDied, WorkerProcess, Zygote, ZygoteFailed
from autotune.measure.timing import TimingPlan
from search_spaces.task import Candidate, Target, Task

_START_SECONDS = 180.0
_CANDIDATES_PER_WORKER = 500
_DOUBTFUL = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT}
"""Deaths that an earlier candidate of the same worker may have caused, by writing out of bounds."""

T = TypeVar("T")


@dataclass
class Lane:
    """A place for one worker, None until it is needed, or since the last one ended."""

    worker: WorkerProcess | None = None


Steps = Generator[float, wire.Message, T]
"""Yields when the next message must be there, is sent that message, and is thrown ``LimitPassed``
or ``WorkerDied`` where none comes. Closed early, it ends the worker that it is about."""


class WorkerRunner(Runner):
    """Takes candidates to workers, and replaces the worker that one of them ended.

    When a candidate crashes, hangs, eats memory or computes something wrong, its outcome says why.
    ``incumbents`` holds the best time in seconds by workload key: a candidate that is clearly
    slower is stopped early. It is kept up to date here, and may be filled from a database before.
    A candidate that makes the same module as another one that was measured is not built: the
    outcome is known. Belongs to one thread.
    """

    def __init__(
        self,
        target: Target,
        limits: Limits | None,
        *,
        plugins: Sequence[str],
        plan: TimingPlan | None,
        reference_seconds: float,
        seed: int,
        threads: int,
        lanes: int = 1,
        measuring: Sequence[int] = (),
    ) -> None:
        """Start the processes in the background; what they run here uses ``threads`` threads.

        ``lanes`` is how many workers there may be at once, ``measuring`` the cores on which kernels
        run; none: wherever the system puts them.
        """
        self.target = target
        self.limits = limits or Limits()
        self.incumbents: dict[str, float] = {}
        self._plugins = tuple(plugins)
        self._plan = plan or TimingPlan()
        self._reference_seconds = reference_seconds
        self._seed = seed
        self._threads = threads
        self._references: dict[str, Reference] = {}
        self._modules: dict[str, dict[str, Measurement]] = {}
        """By workload key, what was measured by the digest of its module."""
        self._lanes = [Lane() for _ in range(lanes)]
        self._measuring = list(measuring)
        self._zygote: Zygote | None = Zygote(threads, self._plugins)

    @abstractmethod
    def _probe(self) -> None:
        """Run a first kernel: a target whose code cannot run is found before any task.

        Called before each task; raises ``TargetError``.
        """

    def _task_message(self, task: Task) -> dict[str, Any]:
        """What a worker is told before the candidates of ``task``."""
        return {
            "do": "task",
            "task": wire.task_message(task),
            "target": asdict(self.target),
            "seed": self._seed,
            "plan": asdict(self._plan),
        }

    def _entered(self, told: wire.Message, worker: WorkerProcess, deadline: float) -> float:
        """Called when ``worker`` begins a stage (``told["at"]``).

        ``deadline`` is that of the stage before; returns when this one must end. Both are
        ``time.monotonic()`` seconds.
        """
        if told["at"] == "verify":
            return time.monotonic() + self.limits.run_seconds
        return deadline

    def _excuse(self, stage: str, reason: str, done: Mapping[str, Any]) -> None:
        """Called with what ended a stage too early: raises where that is not the candidate's fault.

        ``done`` is the worker's last message, empty where it died or its time was over.
        """

    def remember(self, task: Task, measurements: Iterable[Measurement]) -> None:
        made = self._modules.setdefault(task.workload.key, {})
        for found in measurements:
            if isinstance(found.outcome, Measured) and found.module and not found.same_as:
                made.setdefault(found.module, found)

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Yield one measurement for each candidate, in order.

        Raises ``TargetError`` where this machine cannot run the target's code, and
        ``TaskNotMeasurable`` where the task's reference cannot be computed.
        """
        self._probe()
        for measurement in self._measured(task, candidates):
            outcome = measurement.outcome
            if isinstance(outcome, Measured):
                best = self.incumbents.get(task.workload.key, outcome.seconds)
                self.incumbents[task.workload.key] = min(best, outcome.seconds)
            yield measurement

    def forget(self, task: Task) -> None:
        """Give up no further candidate of ``task`` for being slower than those before."""
        self.incumbents.pop(task.workload.key, None)

    @abstractmethod
    def _measured(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """One measurement for each candidate, in order. Raises ``TaskNotMeasurable``."""

    def close(self) -> None:
        """End every process and forget every reference."""
        for lane in self._lanes:
            self._discard(lane)
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        for reference in self._references.values():
            reference.close()
        self._references.clear()

    def __del__(self) -> None:
        if getattr(self, "_zygote", None) is not None:
            self.close()

    def _fork(self, lane: Lane | None = None) -> WorkerProcess:
        """The worker of ``lane`` (the first), or a new one. A zygote that died starts again."""
        lane = lane or self._lanes[0]
        if lane.worker is not None and not lane.worker.alive:
            self._discard(lane)  # while nothing ran in it: no candidate's doing
        if lane.worker is None:
            for attempt in (0, 1):
                if self._zygote is None:
                    self._zygote = Zygote(self._threads, self._plugins)
                try:
                    self._zygote.wait_ready(_START_SECONDS)
                    lane.worker = WorkerProcess(self._zygote, self.limits.memory_bytes)
                    break
                except ZygoteFailed as error:
                    self._zygote.close()
                    self._zygote = None
                    if attempt:
                        raise AutotuneError(f"the measuring process failed: {error}") from error
        assert lane.worker is not None
        return lane.worker

    def _discard(self, lane: Lane | None = None) -> tuple[int, str]:
        """End the worker of ``lane`` (the first): the signal that ended it and its last words."""
        lane = lane or self._lanes[0]
        worker, lane.worker = lane.worker, None
        if worker is None:
            return 0, ""
        try:
            return worker.end()
        except ZygoteFailed:
            # Perhaps there is a new one already, for other lanes.
            if self._zygote is worker.zygote:
                worker.zygote.close()
                self._zygote = None
            return int(signal.SIGKILL), "the measuring processes were killed from outside"

    def reference_precision(self, task: Task) -> str:
        """What the outputs to compare with were computed in: "float64" or "as written".

        Raises ``TaskNotMeasurable`` where they cannot be computed.
        """
        return self._reference(task).precision

    def _reference(self, task: Task) -> Reference:
        """The outputs to compare with, computed on the first call.

        Raises ``TaskNotMeasurable`` where that cannot be.
        """
        known = self._references.get(task.workload.key)
        return known or self._driven(self._lanes[0], self._reference_steps(self._lanes[0], task))

    def _reference_steps(
        self, lane: Lane, task: Task, reference: Reference | None = None
    ) -> Steps[Reference]:
        """Let the worker of ``lane`` compute what to compare with, into ``reference`` if given.

        Raises ``TaskNotMeasurable``; the reference is closed then.
        """
        made = reference or Reference(task)
        reason = ""
        try:
            worker = self._prepared(lane, task, made.descriptor)
            worker.send({"do": "reference", "cores": self._measuring})
            answer = (yield time.monotonic() + self._reference_seconds)["done"]
            reason = answer.get("failed", "")
        except LimitPassed:
            self._discard(lane)
            reason = f"it takes more than {self._reference_seconds:g} s"
        except WorkerDied:
            number, words = self._discard(lane)
            reason = f"it died of signal {number} {words}"
        except BaseException:
            made.close()
            self._discard(lane)
            raise
        if reason:
            made.close()
            if lane.worker is not None:
                lane.worker.task = ""  # another try has a file of its own
            raise TaskNotMeasurable(
                f"the reference of {task.workload.name} cannot be computed: {reason}"
            )
        made.seal(answer["draws"], answer["precision"])
        self._references[task.workload.key] = made
        return made

    def _prepared(self, lane: Lane, task: Task, reference: int) -> WorkerProcess:
        """The worker of ``lane``, which knows ``task``."""
        if lane.worker is not None and lane.worker.candidates >= _CANDIDATES_PER_WORKER:
            self._discard(lane)
        worker = self._fork(lane)
        if worker.task != task.workload.key:
            worker.send(self._task_message(task), [reference])
            worker.task = task.workload.key
        return worker

    def _attempt(self, task: Task, reference: Reference, candidate: Candidate) -> Measurement:
        """Measure a candidate in the first lane, waiting for it."""
        lane = self._lanes[0]
        return self._driven(lane, self._steps(lane, task, reference, candidate))

    def _driven(self, lane: Lane, steps: Steps[T]) -> T:
        """Wait for what ``steps`` return, which are about the worker of ``lane``."""
        try:
            deadline = next(steps)
            while True:
                worker = lane.worker
                assert worker is not None  # the steps go on only while there is one
                try:
                    message = worker.receive(deadline)
                except (LimitPassed, WorkerDied) as error:
                    deadline = steps.throw(error)
                else:
                    deadline = steps.send(message)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            steps.close()

    def _steps(
        self,
        lane: Lane,
        task: Task,
        reference: Reference,
        candidate: Candidate,
        *,
        wait: bool = False,
        cores: Sequence[int] = (),
    ) -> Steps[Measurement]:
        """The way of one candidate through the worker of ``lane``: returns its measurement.

        With ``wait`` the worker stops when the candidate is built, on ``cores``, until it is told
        to go on, and with which draws of the reference.
        """
        stage, trace, module = "schedule", "", ""
        seconds: dict[str, float] = {}
        drift: float | None = None
        outcome: Outcome
        try:
            worker = self._prepared(lane, task, reference.descriptor)
            worker.candidates += 1
            worker.send(
                {
                    "do": "measure",
                    "candidate": wire.candidate_message(candidate),
                    "draws": reference.draws,
                    "best": self.incumbents.get(task.workload.key),
                    "wait": wait,
                    "cores": list(cores),
                    "known": self._made_by_others(task, candidate),
                }
            )
            deadline = time.monotonic() + self.limits.build_seconds
            while "done" not in (message := (yield deadline)):
                stage, trace, seconds = message["at"], message["trace"], message["seconds"]
                deadline = self._entered(message, worker, deadline)
            done = message["done"]
            self._excuse(stage, "", done)
            if "same" in done:
                worker.noise()
                twin = self._modules[task.workload.key][done["same"]]
                return replace(
                    twin,
                    candidate=candidate,
                    trace=done["trace"],
                    seconds=spent(done["seconds"]),
                    same_as=twin.candidate.key,
                )
            module = done["module"]
            trace, seconds, drift = done["trace"], done["seconds"], done["drift"]
            outcome = wire.outcome_from(done["outcome"])
        except LimitPassed:
            self._discard(lane)
            self._excuse(stage, "no answer", {})
            building = stage in ("schedule", "build")
            limit = self.limits.build_seconds if building else self.limits.run_seconds
            outcome = TimedOut("build" if building else "run", limit)
            return Measurement(candidate, outcome, trace, spent(seconds))
        except (WorkerDied, wire.BadMessage) as error:
            number, words = self._discard(lane)
            cause = ": ".join(filter(None, (_cause(number) or str(error), words)))
            self._excuse(stage, cause, {})
            outcome = Crashed(stage, number, cause)
        except BaseException:
            self._discard(lane)  # interrupted: the worker is busy with what nobody will read
            raise
        if isinstance(outcome, WrongResult | Crashed):
            self._discard(lane)  # it may have written anywhere
        else:
            worker.noise()
        found = Measurement(candidate, outcome, trace, spent(seconds), drift, module)
        self.remember(task, [found])
        return found

    def _made_by_others(self, task: Task, candidate: Candidate) -> list[str]:
        """Digests of modules whose outcome is known from another candidate than this one."""
        made = self._modules.get(task.workload.key, {})
        return [m for m, known in made.items() if known.candidate.key != candidate.key]


def doubtful(measurement: Measurement) -> bool:
    """Whether a crash may be the work of an earlier candidate in the same worker."""
    outcome = measurement.outcome
    return isinstance(outcome, Crashed) and outcome.signal in _DOUBTFUL


def spent(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of the stages that are work of the candidate."""
    return {name: value for name, value in seconds.items() if name not in ("wait", "device")}


def _cause(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return ""
