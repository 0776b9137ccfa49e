"""Measuring on this machine, in worker processes that may die."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autotune.errors import AutotuneError, TargetError
from autotune.measure import wire
from autotune.measure.base import Limits, Measurement, Runner, TaskNotMeasurable
from autotune.measure.data import outputs_of
from autotune.measure.outcome import Crashed, Measured, Outcome, TimedOut, WrongResult
from autotune.measure.process import LimitPassed, WorkerDied, WorkerProcess, Zygote, ZygoteFailed
from autotune.measure.timing import TimingPlan
from search_spaces.task import Candidate, Target, Task

_START_SECONDS = 180.0
_CANDIDATES_PER_WORKER = 500
_DOUBTFUL = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT}
"""Deaths that an earlier candidate of the same worker may have caused, by writing out of bounds."""


_MOST_DRAWS = 4


@dataclass(frozen=True)
class _Reference:
    """The file in memory with the outputs to compare with, for each draw of inputs in turn."""

    descriptor: int
    draws: list[dict[str, Any]]
    precision: str


class LocalRunner(Runner):
    """Measures candidates on this machine, one at a time, so that each has its cores alone.

    A worker builds and runs candidate after candidate; when one crashes, hangs, eats memory or
    computes something wrong, the worker is replaced and the candidate's outcome says why.
    ``incumbents`` holds the best time in seconds by workload key: a candidate that is clearly
    slower is stopped early. It is kept up to date here, and may be filled from a database before.
    Belongs to one thread.
    """

    def __init__(
        self,
        target: Target,
        limits: Limits | None = None,
        *,
        plugins: Sequence[str] = (),
        plan: TimingPlan | None = None,
        reference_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        """Start the processes in the background.

        ``plugins`` are modules to import in the workers, that register search spaces by
        ``search_spaces.registry.register``. ``reference_seconds`` limits the plain computation of
        each task that candidates are compared with. Raises ``TargetError`` where this machine
        cannot run code for ``target``.
        """
        self.target = target
        self.limits = limits or Limits()
        self.incumbents: dict[str, float] = {}
        self._plugins = tuple(plugins)
        self._plan = plan or TimingPlan()
        self._reference_seconds = reference_seconds
        self._seed = seed
        self._references: dict[str, _Reference] = {}
        self._worker: WorkerProcess | None = None
        self._probed = False
        _check(target)
        self._zygote: Zygote | None = Zygote(target.threads, self._plugins)

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Yield one measurement for each candidate, in order.

        Raises ``TargetError`` where this machine cannot run the target's code, and
        ``TaskNotMeasurable`` where the task's reference cannot be computed.
        """
        self._probe()
        reference = self._reference(task)
        for candidate in candidates:
            measurement = self._measure(task, reference, candidate)
            outcome = measurement.outcome
            if isinstance(outcome, Measured):
                best = self.incumbents.get(task.workload.key, outcome.seconds)
                self.incumbents[task.workload.key] = min(best, outcome.seconds)
            yield measurement

    def close(self) -> None:
        """End every process and forget every reference."""
        self._discard()
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        for reference in self._references.values():
            os.close(reference.descriptor)
        self._references.clear()

    def __del__(self) -> None:
        if getattr(self, "_zygote", None) is not None:
            self.close()

    def _fork(self) -> WorkerProcess:
        """The worker in hand, or a new one. A zygote that died is started again."""
        if self._worker is None:
            for attempt in (0, 1):
                if self._zygote is None:
                    self._zygote = Zygote(self.target.threads, self._plugins)
                try:
                    self._zygote.wait_ready(_START_SECONDS)
                    self._worker = WorkerProcess(self._zygote, self.limits.memory_bytes)
                    break
                except ZygoteFailed as error:
                    self._zygote.close()
                    self._zygote = None
                    if attempt:
                        raise AutotuneError(f"the measuring process failed: {error}") from error
        assert self._worker is not None
        return self._worker

    def _discard(self) -> tuple[int, str]:
        """End the worker in hand; returns the signal that ended it and its last words."""
        worker, self._worker = self._worker, None
        if worker is None:
            return 0, ""
        try:
            return worker.end()
        except ZygoteFailed:
            if self._zygote is not None:
                self._zygote.close()
            self._zygote = None
            return int(signal.SIGKILL), "the measuring processes were killed from outside"

    def _probe(self) -> None:
        """Run a first kernel: a target that this machine cannot run is found before any task."""
        if self._probed:
            return
        worker = self._fork()
        try:
            worker.send({"do": "probe", "target": asdict(self.target)})
            answer = worker.receive(time.monotonic() + 60.0)["done"]
        except (WorkerDied, LimitPassed) as error:
            number, words = self._discard()
            raise TargetError(
                f"this machine ({platform.machine()}) cannot run code for target "
                f"{self.target.cpu or self.target.triple!r} (signal {number} {words}): "
                "name the target that it is, or use --target native"
            ) from error
        if not answer.get("right"):
            raise TargetError(
                f"code for target {self.target.cpu or self.target.triple!r} does not work here "
                f"({answer.get('failed', 'wrong result')}): use --target native"
            )
        self._probed = True

    def reference_precision(self, task: Task) -> str:
        """What the outputs to compare with were computed in: "float64" or "as written".

        Raises ``TaskNotMeasurable`` where they cannot be computed.
        """
        return self._reference(task).precision

    def _reference(self, task: Task) -> _Reference:
        """The outputs to compare with, computed on the first call."""
        key = task.workload.key
        if key in self._references:
            return self._references[key]
        size = sum(t.bytes for t in outputs_of(task.workload))
        descriptor = os.memfd_create("autotune-reference", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        reason = ""
        try:
            os.ftruncate(descriptor, _MOST_DRAWS * size)  # what is not written takes no memory
            worker = self._prepared(task, descriptor)
            worker.send({"do": "reference"})
            answer = worker.receive(time.monotonic() + self._reference_seconds)["done"]
            reason = answer.get("failed", "")
        except LimitPassed:
            self._discard()
            reason = f"it takes more than {self._reference_seconds:g} s"
        except WorkerDied:
            number, words = self._discard()
            reason = f"it died of signal {number} {words}"
        except BaseException:
            os.close(descriptor)
            self._discard()
            raise
        if reason:
            os.close(descriptor)
            raise TaskNotMeasurable(
                f"the reference of {task.workload.name} cannot be computed: {reason}"
            )
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)  # no candidate can change it
        self._references[key] = _Reference(descriptor, answer["draws"], answer["precision"])
        return self._references[key]

    def _prepared(self, task: Task, reference: int) -> WorkerProcess:
        """A worker that knows ``task``."""
        if self._worker is not None and self._worker.candidates >= _CANDIDATES_PER_WORKER:
            self._discard()
        worker = self._fork()
        if worker.task != task.workload.key:
            message = {
                "do": "task",
                "task": wire.task_message(task),
                "target": asdict(self.target),
                "seed": self._seed,
                "plan": asdict(self._plan),
            }
            worker.send(message, [reference])
            worker.task = task.workload.key
        return worker

    def _measure(self, task: Task, reference: _Reference, candidate: Candidate) -> Measurement:
        fresh = self._worker is None or self._worker.candidates == 0
        measurement = self._attempt(task, reference, candidate)
        outcome = measurement.outcome
        if not fresh and isinstance(outcome, Crashed) and outcome.signal in _DOUBTFUL:
            return self._attempt(task, reference, candidate)
        return measurement

    def _attempt(self, task: Task, reference: _Reference, candidate: Candidate) -> Measurement:
        stage, trace = "schedule", ""
        seconds: dict[str, float] = {}
        outcome: Outcome
        try:
            worker = self._prepared(task, reference.descriptor)
            worker.candidates += 1
            worker.send(
                {
                    "do": "measure",
                    "candidate": wire.candidate_message(candidate),
                    "draws": reference.draws,
                    "best": self.incumbents.get(task.workload.key),
                }
            )
            deadline = time.monotonic() + self.limits.build_seconds
            while "done" not in (message := worker.receive(deadline)):
                stage, trace, seconds = message["at"], message["trace"], message["seconds"]
                if stage == "verify":
                    deadline = time.monotonic() + self.limits.run_seconds
            done = message["done"]
            trace, seconds = done["trace"], done["seconds"]
            outcome = wire.outcome_from(done["outcome"])
        except LimitPassed:
            self._discard()
            building = stage in ("schedule", "build")
            limit = self.limits.build_seconds if building else self.limits.run_seconds
            return Measurement(
                candidate, TimedOut("build" if building else "run", limit), trace, seconds
            )
        except (WorkerDied, wire.BadMessage) as error:
            number, words = self._discard()
            cause = ": ".join(filter(None, (_cause(number) or str(error), words)))
            outcome = Crashed(stage, number, cause)
        except BaseException:
            self._discard()  # interrupted: the worker is busy with what nobody will read
            raise
        if isinstance(outcome, WrongResult | Crashed):
            self._discard()  # it may have written anywhere
        else:
            worker.noise()
        return Measurement(candidate, outcome, trace, seconds)


def _cause(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return ""


def _check(target: Target) -> None:
    """Refuse what cannot be this machine, without starting anything."""
    if target.kind != "llvm":
        raise TargetError(f"only llvm targets can be measured locally, not {target.kind!r}")
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    wanted = target.triple.split("-")[0].lower()
    here = platform.machine().lower()
    if wanted and names.get(wanted, wanted) != names.get(here, here):
        raise TargetError(
            f"a target for {wanted} cannot be measured on this {here} machine: "
            "compile for it with --target, or measure on such a machine"
        )
