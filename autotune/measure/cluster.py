"""Measuring on the hosts of a Ray cluster, which all are what the target says."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.errors import DeviceError, InputError, MissingDependency, TargetError
from autotune.measure.base import Limits, Measurement, Runner, TaskNotMeasurable
from autotune.measure.node import PACKAGES, Node
from autotune.measure.outcome import Crashed, Measured
from autotune.measure.timing import TimingPlan
from autotune.measure.tracker import Tracker
from autotune.measure.wire import target_from
from autotune.versions import installed
from search_spaces.task import Candidate, Target, Task

AUTO = "auto"
WAIT_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
"""Until an actor that is starting again is asked again."""

_MOST_LOSSES = 3
"""How often the actor of a host may die without an answer in between, until it is left out."""


@dataclass
class _Host:
    """A host of the cluster and its actor; ``greeting`` is under way until the host is ``ready``.

    It is None until ``again`` (``time.monotonic()`` seconds) where the actor was just lost.
    ``told`` counts by workload what it was told of measurements elsewhere.
    """

    identity: str
    address: str
    actor: Any
    greeting: Any
    ready: bool = False
    again: float = 0.0
    process: int = 0
    losses: int = 0
    told: dict[str, int] = field(default_factory=dict)
    forget: set[str] = field(default_factory=set)


@dataclass
class _Flight:
    """Candidates on their way to a host: ``answers`` come one by one, in order."""

    host: _Host
    candidates: deque[Candidate]
    answers: Any


class RayRunner(Runner):
    """Builds, runs and verifies candidates on the hosts of a Ray cluster, several at a time.

    Each host has one actor that holds all of the CPUs which the host gives to Ray, so that no other
    work of the cluster, and no other search, measures there meanwhile. The actor measures as
    ``LocalRunner`` does, in workers that a candidate may take down. An actor that dies is started
    again and what was with it is measured once more; a candidate that was with two of them has
    crashed. Hosts may leave and join. What comes back is recorded by the caller: the database stays
    with it.

    Who reaches a Ray cluster can run any code on it: for private networks only.
    """

    keeps = True

    def __init__(
        self,
        target: Target,
        address: str = AUTO,
        limits: Limits | None = None,
        *,
        plugins: Sequence[str] = (),
        plan: TimingPlan | None = None,
        reference_seconds: float = 60.0,
        seed: int = 0,
        cores: int | None = None,
        wait_seconds: float = WAIT_SECONDS,
        status: Callable[[str], None] | None = None,
    ) -> None:
        """Connect to the cluster at ``address``: HOST:PORT, or "auto" for the one of this host.

        A host is waited for up to ``wait_seconds`` where all are in use. ``status`` is told of
        hosts that are left out. The other arguments are those of ``LocalRunner``, on each host.
        Raises ``MissingDependency`` without Ray, ``InputError`` for an address that is none, and
        ``DeviceError`` where no cluster answers.
        """
        self.target = target
        self._limits, self._plan = limits or Limits(), plan or TimingPlan()
        self._options = {
            "plugins": tuple(plugins),
            "reference_seconds": reference_seconds,
            "seed": seed,
            "cores": cores,
        }
        self._wait_seconds, self._status = wait_seconds, status
        self._hosts: dict[str, _Host] = {}
        self._left_out: set[str] = set()
        self._tasks: dict[str, Any] = {}
        self._known: dict[str, list[Measurement]] = {}
        self._reason = ""
        self._ray = _installed_ray()
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address)
        self.parallel = len(self._present())

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        """Yield one measurement for each candidate, in any order.

        Raises ``DeviceError`` where no host can be had, ``TargetError`` where none is what the
        target says, and ``TaskNotMeasurable`` where the task's reference cannot be computed.
        """
        waiting, lost = deque(candidates), set[str]()
        flights: list[_Flight] = []
        while waiting or flights:
            busy = {flight.host.identity for flight in flights}
            free = [] if not waiting else [h for h in self._ready() if h.identity not in busy]
            if waiting and len(candidates) == 1:
                # What is compared one by one is compared on one host.
                free = free and [free[int(task.workload.key, 16) % len(free)]]
            share = math.ceil(len(waiting) / max(1, len(free)))
            for host in free:
                part = deque(waiting.popleft() for _ in range(min(share, len(waiting))))
                if part:
                    flights.append(self._sent(host, task, part))
            if not flights:
                self._wait_for_host()
                continue
            for flight in self._answering(flights):
                try:
                    kind, value = self._answer(flight)
                except StopIteration:
                    flights.remove(flight)
                    waiting.extend(flight.candidates)  # none, but for a fault of ours
                    continue
                except self._ray.exceptions.RayError as error:
                    flights.remove(flight)
                    first = flight.candidates.popleft() if flight.candidates else None
                    waiting.extendleft(reversed(flight.candidates))
                    self._lose(flight.host, error)
                    if first is not None and first.key in lost:
                        message = f"the actor was lost twice: {_first_line(error)}"
                        yield Measurement(first, Crashed("run", 0, message), "", {})
                    elif first is not None:
                        lost.add(first.key)
                        waiting.appendleft(first)
                    continue
                if kind == "unmeasurable":
                    raise TaskNotMeasurable(value)
                if kind == "refused":
                    raise TargetError(f"on the host {flight.host.address}: {value}")
                flight.host.losses = 0
                flight.candidates.popleft()
                self._note(task, value)
                yield value

    def forget(self, task: Task) -> None:
        """Give up no further candidate of ``task`` for being slower than those before."""
        for host in self._hosts.values():
            host.forget.add(task.workload.key)

    def remember(self, task: Task, measurements: Iterable[Measurement]) -> None:
        """Take what earlier runs measured of ``task``."""
        for found in measurements:
            self._note(task, found)

    def close(self) -> None:
        """End every actor, and by that its workers; leave the cluster."""
        for host in self._hosts.values():
            self._end(host)
        self._hosts.clear()
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _note(self, task: Task, found: Measurement) -> None:
        if isinstance(found.outcome, Measured) and found.module and not found.same_as:
            self._known.setdefault(task.workload.key, []).append(found)

    def _sent(self, host: _Host, task: Task, candidates: deque[Candidate]) -> _Flight:
        key = task.workload.key
        if key not in self._tasks:
            self._tasks[key] = self._ray.put(task)  # weights and all: once for all calls
        known = self._known.get(key, [])
        news = known[host.told.get(key, 0) :]
        host.told[key] = len(known)
        forget = key in host.forget
        host.forget.discard(key)
        call = host.actor.measure.options(num_returns="streaming")
        answers = call.remote(self._tasks[key], list(candidates), news, forget)
        return _Flight(host, candidates, answers)

    def _answering(self, flights: list[_Flight]) -> list[_Flight]:
        """The flights that have something to tell, or have ended."""
        found, _ = self._ray.wait(
            [flight.answers for flight in flights], num_returns=1, timeout=_LOOK_SECONDS
        )
        return [flight for flight in flights if any(flight.answers is one for one in found)]

    def _answer(self, flight: _Flight) -> tuple[str, Any]:
        answer: tuple[str, Any] = self._ray.get(next(flight.answers))
        return answer

    def _ready(self) -> list[_Host]:
        """The hosts that can measure now; those that joined are asked what they are."""
        present = self._present()
        for identity in self._hosts.keys() - present.keys():
            self._end(self._hosts.pop(identity))
        for identity, (address, cpus) in present.items():
            if identity not in self._hosts and identity not in self._left_out:
                self._hosts[identity] = self._begun(identity, address, cpus)
        for host in [host for host in self._hosts.values() if not host.ready]:
            if host.greeting is None:
                if time.monotonic() >= host.again:
                    host.greeting = host.actor.described.remote()
            elif self._ray.wait([host.greeting], timeout=0)[0]:
                self._greet(host)
        return [host for host in self._hosts.values() if host.ready]

    def _present(self) -> dict[str, tuple[str, float]]:
        """The address and the CPUs of each host that is alive and has CPUs for Ray."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return {
            node["NodeID"]: (node["NodeManagerAddress"], node["Resources"]["CPU"])
            for node in nodes
            if node["Resources"].get("CPU", 0) > 0
        }

    def _begun(self, identity: str, address: str, cpus: float) -> _Host:
        """A host with an actor that holds all of its CPUs, as soon as they are free."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        made = self._ray.remote(Node).options(
            num_cpus=cpus,
            max_restarts=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False),
        )
        actor = made.remote(self.target, self._limits, self._plan, self._options)
        return _Host(identity, address, actor, actor.described.remote())

    def _greet(self, host: _Host) -> None:
        """Take what a host says that it is: it measures, or it is left out, and that told."""
        try:
            told = self._ray.get(host.greeting)
        except self._ray.exceptions.RayError as error:
            # Until one that was killed has started again there are other errors than this.
            host.losses += isinstance(error, self._ray.exceptions.ActorDiedError)
            host.greeting, host.again = None, time.monotonic() + _PAUSE_SECONDS
            if host.losses >= _MOST_LOSSES:
                self._leave_out(host, f"autotune does not start there ({_first_line(error)})")
            return
        found, here = target_from(told["target"]), installed(PACKAGES)
        if found.digest != self.target.digest:
            self._leave_out(
                host,
                f"it is {found.model} ({found.digest[:12]}), and the target is "
                f"{self.target.model} ({self.target.digest[:12]}): give --target the JSON that "
                f"autotune target show --json --threads {self.target.threads} prints there",
            )
        elif told["versions"] != here:
            self._leave_out(
                host, f"it has {told['versions']} and this host {here}: install the same"
            )
        else:
            host.ready, host.process = True, told["process"]

    def _lose(self, host: _Host, error: Exception) -> None:
        """Note that the actor of ``host`` died, with all that it was told: is there a new one?"""
        host.losses += 1
        host.told.clear()
        host.ready, host.greeting = False, None
        self._tell(
            f"the actor on the host {host.address} (process {host.process}) was lost: "
            f"{_first_line(error)}"
        )
        if host.losses >= _MOST_LOSSES:
            self._leave_out(host, f"its actor died {host.losses} times: {_first_line(error)}")

    def _leave_out(self, host: _Host, reason: str) -> None:
        self._left_out.add(host.identity)
        self._hosts.pop(host.identity, None)
        self._end(host)
        self._reason = f"the host {host.address} of the Ray cluster cannot measure: {reason}"
        self._tell(self._reason)

    def _wait_for_host(self) -> None:
        """Wait until a host is ready. Raises ``DeviceError`` or ``TargetError``."""
        end = time.monotonic() + self._wait_seconds
        while not self._ready():
            if not self._hosts:
                if self._reason:
                    raise TargetError(self._reason)
                raise DeviceError("the Ray cluster has no host with CPUs: start one with ray start")
            if time.monotonic() > end:
                raise DeviceError(
                    f"every host of the Ray cluster was in use for {self._wait_seconds:g} s: wait "
                    "until one has all of its CPUs free, which ray status shows"
                )
            greetings = [host.greeting for host in self._hosts.values() if host.greeting]
            if greetings:
                self._ray.wait(greetings, num_returns=1, timeout=_PAUSE_SECONDS)
            else:
                time.sleep(_PAUSE_SECONDS)

    def _end(self, host: _Host) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(host.actor)

    def _tell(self, line: str) -> None:
        if self._status is not None:
            self._status(line)


def check_ray(address: str) -> None:
    """Raise what is wrong with ``address``, or ``MissingDependency``; nothing is connected."""
    if address != AUTO:
        _parsed(address)
    _installed_ray()


def _parsed(address: str) -> Tracker:
    try:
        found = Tracker.parse(address)
    except InputError:
        found = None
    if found is None or "/" in address:  # Ray's own client (ray://) cannot choose hosts
        raise InputError(
            f"{address!r} is no address of a Ray cluster: write it as HOST:PORT, or auto"
        )
    return found


def _installed_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise MissingDependency(
            "measuring on a Ray cluster needs Ray: run pip install 'autotune[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    if address != AUTO:
        where = _parsed(address)
        try:  # Ray itself tries for minutes
            socket.create_connection((where.host, where.port), _CONNECT_SECONDS).close()
        except OSError as error:
            raise DeviceError(
                f"no Ray cluster answers at {address} ({error}): start it there with "
                f"ray start --head --port {where.port}, or correct the address"
            ) from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DeviceError(
            f"no Ray cluster can be used at {address!r} ({_first_line(error)}): start one with "
            "ray start --head, and run autotune on one of its hosts"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
