"""Measuring on a device: built and judged here, run by the RPC server that a tracker names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from autotune.errors import DeviceError, TargetError
from autotune.instructions import machine
from autotune.measure import wire
from autotune.measure.base import Limits, Measurement
from autotune.measure.expected import Reference
from autotune.measure.outcome import Crashed, TimedOut
from autotune.measure.process import LimitPassed, WorkerDied, WorkerProcess
from autotune.measure.timing import TimingPlan
from autotune.measure.tracker import PAUSE_SECONDS, Lease, Tracker
from autotune.measure.workers import WorkerRunner, spent
from autotune.target import native
from search_spaces.task import Candidate, Target, Task

WAIT_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_PROMPT_SECONDS = 3.0
_GRACE_SECONDS = 3.0
"""The server ends a session when its time is over; if it does not, it is given up after this."""

_BUILD_SECONDS = 60.0
_NO_ANSWER = "no answer"

T = TypeVar("T")


class _Lost(Exception):
    """The device went away in ``stage``: "device" (not reached), "verify" or "run"."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


class RPCRunner(WorkerRunner):
    """Measures candidates on a device that registered at a TVM RPC tracker as ``target.device``.

    A worker process here schedules, compiles and links a candidate; then the tracker is asked for a
    session of the device, which loads it, packs its weights, runs it and times it, and the outputs
    come back to be verified as ``LocalRunner`` does it. Each candidate has a session of its own, of
    ``limits.run_seconds``, enforced by the device's server.

    A kernel that kills its session has crashed. A server that is gone is waited for, up to
    ``wait_seconds``; the candidate in hand is then tried once more. If none comes back ``run``
    raises ``DeviceError``. What TVM cannot do on a device: limit its memory, and see what is
    written before the beginning of a tensor. There is no authentication: use a private network.
    """

    def __init__(
        self,
        target: Target,
        tracker: Tracker | str,
        limits: Limits | None = None,
        *,
        wait_seconds: float = WAIT_SECONDS,
        compiler: str | None = None,
        plugins: Sequence[str] = (),
        plan: TimingPlan | None = None,
        reference_seconds: float = 60.0,
        seed: int = 0,
        status: Callable[[str], None] | None = None,
    ) -> None:
        """Start the processes in the background; the device is asked for when it is needed.

        ``tracker`` is HOST:PORT. ``compiler`` is the command that links for the device, such as
        "aarch64-linux-gnu-gcc"; without one, this machine's own links for its own architecture, and
        the compiler on the device for another. ``status`` is told when the device is waited for.
        The other arguments are those of ``LocalRunner``. Raises ``TargetError`` for a target
        without a device key, and ``InputError`` for an address that is none.
        """
        if not target.device:
            raise TargetError("a target that is measured over RPC needs a device key: use --key")
        if target.kind != "llvm":
            raise TargetError(f"only llvm targets can be measured over RPC, not {target.kind!r}")
        self._tracker = Tracker.parse(tracker) if isinstance(tracker, str) else tracker
        self._wait_seconds = wait_seconds
        if compiler is None and target.triple.split("-")[0] == machine():
            compiler = ""
        self._compiler = compiler
        self._status = status
        self._host = native()
        self._probed = False
        self._gone: float | None = None
        self._told: wire.Message = {}
        super().__init__(
            target,
            limits,
            plugins=plugins,
            plan=plan,
            reference_seconds=reference_seconds,
            seed=seed,
            threads=self._host.threads,
        )

    def _task_message(self, task: Task) -> dict[str, Any]:
        return {
            **super()._task_message(task),
            "host": asdict(self._host),
            "device": self._device_message(),
        }

    def _device_message(self) -> dict[str, Any]:
        return {"compiler": self._compiler, "limit": self.limits.run_seconds}

    def _entered(self, told: wire.Message, worker: WorkerProcess, deadline: float) -> float:
        self._told = told
        if told["at"] == "device":
            lease = self._lease()
            session = {"seconds": self.limits.run_seconds, "threads": self.target.threads}
            worker.send({"device": {**asdict(lease), **session}})
            return time.monotonic() + _CONNECT_SECONDS
        if told["at"] == "verify":
            self._gone = None
            return time.monotonic() + self.limits.run_seconds + _GRACE_SECONDS
        return deadline

    def _lease(self) -> Lease:
        """A session of the device, which is waited for, and that told, if there is none at once."""
        key, now = self.target.device, time.monotonic()
        deadline = (now if self._gone is None else self._gone) + self._wait_seconds
        if self._gone is None and deadline > now + _PROMPT_SECONDS:
            try:
                return self._tracker.lease(key, now + _PROMPT_SECONDS)
            except DeviceError as error:
                self._tell(str(error).partition(": ")[0])
        return self._tracker.lease(key, deadline)

    def _tell(self, reason: str) -> None:
        if self._status is not None:
            self._status(
                f"waiting up to {self._wait_seconds:g} s for the device "
                f"{self.target.device!r} ({reason})"
            )

    def _excuse(self, stage: str, reason: str, done: Mapping[str, Any]) -> None:
        if "lost" in done:
            raise _Lost(stage, done["lost"])
        if reason and stage in ("device", "verify", "run"):
            raise _Lost(stage, reason)

    def _measured(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        reference = self._reference(task)
        for candidate in candidates:
            yield self._measure(task, reference, candidate)

    def _measure(self, task: Task, reference: Reference, candidate: Candidate) -> Measurement:
        try:
            return self._patiently(lambda: self._attempt(task, reference, candidate))
        except _Lost as error:
            limit = self.limits.run_seconds
            return Measurement(
                candidate,
                TimedOut("run", limit)
                if error.reason == _NO_ANSWER
                else Crashed(error.stage, 0, f"the device was lost twice: {error.reason}"),
                self._told["trace"],
                spent(self._told["seconds"]),
            )

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Make ``attempt`` again when the device was lost, once where it had begun to run.

        Raises ``DeviceError`` where it stays away, and the second ``_Lost``.
        """
        losses = 0
        while True:
            try:
                return attempt()
            except _Lost as error:
                now = time.monotonic()
                self._gone = now if self._gone is None else self._gone
                if error.stage != "device":
                    losses += 1
                    if losses > 1:
                        raise
                elif now - self._gone >= self._wait_seconds:
                    raise DeviceError(
                        f"the device {self.target.device!r} cannot be reached where the tracker "
                        f"{self._tracker} says that it is ({error.reason}): start autotune device "
                        "there with --address and the address under which this machine sees it"
                    ) from error
                self._tell(f"it was lost: {error.reason}")
                time.sleep(PAUSE_SECONDS)

    def _probe(self) -> None:
        """Run a first kernel on the device, once."""
        if self._probed:
            return
        key = self.target.device
        name = self.target.cpu or self.target.triple
        try:
            answer = self._patiently(self._probe_once)
        except _Lost as error:
            answer = {"failed": error.reason}
        if not answer.get("right"):
            raise TargetError(
                f"code for target {name!r} does not work on the device {key!r} "
                f"({answer.get('failed', 'wrong result')}): describe the device with --target and "
                "the JSON that autotune target show --json prints there"
            )
        if answer["threads"] < self.target.threads:
            raise TargetError(
                f"the device {key!r} gives kernels {answer['threads']} threads, the target says "
                f"{self.target.threads}: start its server with --threads {self.target.threads}, "
                f"or tune with --threads {answer['threads']}"
            )
        self._probed = True

    def _probe_once(self) -> dict[str, Any]:
        stage = "build"
        worker = self._fork()
        try:
            worker.send(
                {
                    "do": "probe",
                    "target": asdict(self.target),
                    "device": self._device_message(),
                    "cores": [],
                }
            )
            deadline = time.monotonic() + _BUILD_SECONDS
            while "done" not in (message := worker.receive(deadline)):
                stage = message["at"]
                deadline = self._entered(message, worker, deadline)
            done: dict[str, Any] = message["done"]
            self._excuse(stage, "", done)
            return done
        except (LimitPassed, WorkerDied) as error:
            self._discard()
            self._excuse(stage, str(error) or _NO_ANSWER, {})
            return {"failed": f"the build died: {error}"}
        except BaseException:
            self._discard()
            raise
