"""Measuring on this machine, in worker processes that may die."""

from __future__ import annotations

import os
import platform
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Generic, TypeVar

from autotune.errors import InputError, TargetError
from autotune.measure.base import Limits, Measurement
from autotune.measure.cores import set_apart
from autotune.measure.expected import Reference
from autotune.measure.outcome import Crashed
from autotune.measure.process import LimitPassed, WorkerDied
from autotune.measure.timing import TimingPlan
from autotune.measure.workers import Lane, Steps, WorkerRunner, doubtful
from search_spaces.task import Candidate, Target, Task

T = TypeVar("T")


class LocalRunner(WorkerRunner):
    """Measures candidates on this machine, one at a time, so that each has its cores alone.

    Builds go side by side, one to a core, while nothing is measured; where there are more ``cores``
    than a candidate has threads, builds go on there meanwhile. See ``WorkerRunner``.
    """

    keeps = True

    def __init__(
        self,
        target: Target,
        limits: Limits | None = None,
        *,
        plugins: Sequence[str] = (),
        plan: TimingPlan | None = None,
        reference_seconds: float = 60.0,
        seed: int = 0,
        cores: int | None = None,
    ) -> None:
        """Start the processes in the background.

        ``cores`` is how many of this machine's are used, the target's number of threads by default;
        ``plugins`` are modules to import in the workers, that register search spaces by
        ``search_spaces.registry.register``. ``reference_seconds`` limits the plain computation of
        each task that candidates are compared with. Raises ``TargetError`` where this machine
        cannot run code for ``target``, and ``InputError`` for too few cores.
        """
        self._probed = False
        _check(target)
        allowed = set_apart(sorted(os.sched_getaffinity(0)))
        self._cores = min(target.threads if cores is None else cores, len(allowed))
        if cores is not None and self._cores < target.threads:
            raise InputError(
                f"a candidate of {target.threads} threads cannot be measured on {self._cores} "
                "cores: give more with --cores, or use fewer --threads"
            )
        spare = self._cores > target.threads
        self._building = allowed[target.threads if spare else 0 : self._cores]
        super().__init__(
            target,
            limits,
            plugins=plugins,
            plan=plan,
            reference_seconds=reference_seconds,
            seed=seed,
            threads=target.threads,
            lanes=self._cores if spare or self._cores == 1 else 2 * self._cores,
            measuring=allowed[: target.threads],
        )

    def _measured(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Build side by side, measure in order, and never both on the same cores.

        What to compare with is computed beside the first builds.
        """
        if not candidates:
            return
        waiting = deque(candidates)
        flights: deque[_Flight[Measurement]] = deque()
        known = self._references.get(task.workload.key)
        reference = known or Reference(task)
        computing: _Flight[Reference] | None = None
        if known is None:
            lane = self._lanes[0]
            begin = partial(self._reference_steps, lane, task, reference)
            computing = _Flight(lane, begin, waits=False)
        spare = max(0, self._cores - self.target.threads)
        builders = len(self._building)
        turn = "build"  # without cores to spare: now all build, now one after the other runs
        try:
            while waiting or flights:
                if computing is not None and computing.result is not None:
                    computing = None
                if flights and flights[0].result is not None:
                    yield flights.popleft().result  # type: ignore[misc]  # it was looked at
                    continue
                stages = [flight.stage for flight in flights]
                building, first = stages.count("build"), stages[0] if stages else ""
                busy = [flight.lane for flight in flights if flight.result is None]
                if computing is not None:
                    building += 1
                    busy.append(computing.lane)
                if "wait" not in stages and "run" not in stages:
                    turn = "build"
                free = [lane for lane in self._lanes if all(lane is not other for other in busy)]
                more = bool(waiting and free)
                ready = computing is None and (spare or turn == "run" or not more)
                if first == "wait" and building <= spare and ready:
                    turn = "run"
                    order = {
                        "draws": reference.draws,
                        "best": self.incumbents.get(task.workload.key),
                        "cores": self._measuring,
                    }
                    flights[0].go(order, time.monotonic() + self.limits.run_seconds)
                    continue
                # With cores to spare, what waits to be measured comes first.
                pressing = first == "wait" and computing is None
                may_build = not pressing if spare else turn == "build"
                if more and may_build and building < builders:
                    lane = max(free, key=lambda lane: lane.worker is not None)
                    begin_one = partial(
                        self._steps, lane, task, reference, waiting.popleft(),
                        wait=True, cores=self._building,
                    )  # fmt: skip
                    flights.append(_Flight(lane, begin_one))
                    continue
                _wait_for_one([*flights, computing] if computing else flights)
        finally:
            if computing is not None:
                computing.steps.close()
            for flight in flights:
                flight.steps.close()

    def _probe(self) -> None:
        """Run a first kernel here, once."""
        if self._probed:
            return
        worker = self._fork()
        try:
            probe = {"do": "probe", "target": asdict(self.target), "cores": self._measuring}
            worker.send(probe)
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


class _Flight(Generic[T]):
    """What a worker is busy with: "build", "wait" (it is built), "run", and then its ``result``.

    A candidate ``waits`` to be run and may be tried again; nothing else does.
    """

    def __init__(self, lane: Lane, begin: Callable[[], Steps[T]], *, waits: bool = True) -> None:
        self.lane = lane
        self._begin = begin
        self._fresh = lane.worker is None or lane.worker.candidates == 0
        self._tried = not waits
        self.result: T | None = None
        self.steps = begin()
        self.stage = "build"
        self.deadline = 0.0
        self._advance(lambda: next(self.steps))

    def go(self, order: Mapping[str, object], deadline: float) -> None:
        """Let it run, as ``order`` says; it must begin before ``deadline``."""
        self.stage, self.deadline = "run", deadline
        worker = self.lane.worker
        assert worker is not None  # it waits in there
        try:
            worker.send(order)
        except WorkerDied as error:
            self._advance(partial(self.steps.throw, error))

    def look(self) -> None:
        """Take what its worker has to say by now, and see whether its time is over."""
        while self.result is None and self.stage != "wait":
            worker = self.lane.worker
            assert worker is not None  # the steps go on only while there is one
            try:
                message = worker.pending()
            except WorkerDied as error:
                self._advance(partial(self.steps.throw, error))
                continue
            if message is not None:
                if message.get("at") == "wait":
                    self.stage = "wait"
                self._advance(partial(self.steps.send, message))
            elif time.monotonic() >= self.deadline:
                self._advance(partial(self.steps.throw, LimitPassed()))
            else:
                return

    def _again(self, found: T) -> bool:
        if self._tried or not isinstance(found, Measurement):
            return False
        died_waiting = isinstance(found.outcome, Crashed) and found.outcome.stage == "wait"
        return died_waiting or (doubtful(found) and not self._fresh)

    def _advance(self, step: Callable[[], float]) -> None:
        try:
            self.deadline = step()
        except StopIteration as end:
            if self._again(end.value):
                # Another candidate's doing, or somebody else's: once more, in a worker of its own.
                self._fresh, self._tried, self.stage = True, True, "build"
                self.steps = self._begin()
                self._advance(lambda: next(self.steps))
            else:
                self.result, self.stage = end.value, "over"


def _wait_for_one(flights: Iterable[_Flight[Any]]) -> None:
    """Wait until a worker says something or a time is over, and take it in."""
    active = [flight for flight in flights if flight.stage in ("build", "run")]
    poll = select.poll()
    for flight in active:
        assert flight.lane.worker is not None
        flight.lane.worker.watch(poll)
    left = min(flight.deadline for flight in active) - time.monotonic()
    poll.poll(min(max(left, 0.0), 1e6) * 1000)
    for flight in active:
        flight.look()


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
