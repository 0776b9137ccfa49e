"""One candidate after the other, inside a worker: schedule, build, verify, run."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from autotune.dtypes import numpy_dtype
from autotune.measure import remote, wire
from autotune.measure.checking import Draws, check, draws_from
from autotune.measure.cores import Places
from autotune.measure.data import Array, outputs_of
from autotune.measure.drift import DriftClock
from autotune.measure.guard import Allocate, Buffer, Guarded
from autotune.measure.kernel import Kernel, PackingError, build_kernel
from autotune.measure.outcome import (
    BuildFailed,
    Crashed,
    Invalid,
    Measured,
    Outcome,
    TimedOut,
    WrongResult,
)
from autotune.measure.timing import TimingPlan, collect, estimate
from autotune.measure.verify import Comparison
from search_spaces.base import InvalidParameters
from search_spaces.registry import UnknownSpace
from search_spaces.task import Candidate, Target, Task, TensorType, Workload

_LONGEST = 600

_MOST_KEPT = 8
"""Kernels that a worker keeps, in case they are measured again: as many as finals compare."""


def brief(error: BaseException) -> str:
    """The type of ``error`` and what it says, without TVM's stack, at most 600 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(("File ", "Traceback", "at ")))
    return f"{type(error).__name__}: {text}"[:_LONGEST]


def module_digest(module: Any) -> str:
    """Equal for equal modules, in every process, whatever parameters led to them."""
    import tvm_ffi

    return f"{tvm_ffi.structural_hash(module, map_free_vars=True):016x}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation was refused: Python's error, or C++'s in TVM's clothes."""
    text = str(error)
    return isinstance(error, MemoryError) or any(
        sign in text for sign in ("bad_alloc", "out of memory", "Cannot allocate memory")
    )


@dataclass(frozen=True)
class _Kept:
    """A candidate that was built."""

    kernel: Kernel
    trace: str
    module: str


@dataclass
class _Job:
    """What a worker knows of the task in hand.

    References are computed for ``host``. ``device`` is None where the candidates run here.
    """

    task: Task
    target: Target
    host: Target
    device: Mapping[str, Any] | None
    seed: int
    plan: TimingPlan
    reference: int
    clock: DriftClock
    places: Places
    draws: Draws | None = None
    kept: dict[str, _Kept] = field(default_factory=dict)
    """By candidate key; the one that was measured last comes last."""

    def prepare(self, message: Sequence[Mapping[str, Any]]) -> Draws:
        """What the candidates are checked on, made once for each worker and task."""
        if self.draws is None:
            self.draws = self.draws_in(message, Guarded)
        return self.draws

    def keep(self, candidate: Candidate, built: _Kept) -> None:
        """Have ``candidate`` at hand if it is measured again."""
        self.kept.pop(candidate.key, None)
        self.kept[candidate.key] = built
        if len(self.kept) > _MOST_KEPT:
            del self.kept[next(iter(self.kept))]

    def draws_in(self, message: Sequence[Mapping[str, Any]], allocate: Allocate) -> Draws:
        """What a candidate is checked on, in tensors of ``allocate``."""
        kinds = outputs_of(self.task.workload)
        size = sum(t.bytes for t in kinds)
        return Draws(
            self.task,
            draws_from(message),
            lambda index: _read(self.reference, kinds, index * size),
            allocate,
        )


def serve(channel: socket.socket) -> None:
    """Answer requests until the other side closes ``channel``."""
    job: _Job | None = None
    clock = DriftClock()
    places = Places()
    while True:
        try:
            message, descriptors = wire.receive(channel)
        except (EOFError, OSError):
            return
        if message["do"] == "task":
            if job is not None:
                os.close(job.reference)
            job = _Job(
                wire.task_from(message["task"]),
                wire.target_from(message["target"]),
                wire.target_from(message.get("host") or message["target"]),
                message.get("device"),
                message["seed"],
                TimingPlan(**message["plan"]),
                descriptors[0],
                clock,
                places,
            )
        elif message["do"] == "probe":
            places.run_on(message["cores"])
            wire.send(channel, {"done": _probe(channel, message)})
        elif message["do"] == "reference" and job is not None:
            places.run_on(message["cores"])
            wire.send(channel, {"done": _reference(job)})
        elif job is not None:
            job_done = _measure(channel, job, message)
            wire.send(channel, {"done": job_done})


def _reference(job: _Job) -> dict[str, Any]:
    from autotune.measure.reference import compute_references

    try:
        reference = compute_references(job.task, job.host, job.seed)
    except Exception as error:  # anything that TVM raises: the caller names the task
        return {"failed": brief(error)}
    offset = 0
    for output in (output for outputs in reference.outputs.values() for output in outputs):
        data = memoryview(np.ascontiguousarray(output).reshape(-1).view(np.uint8).data)
        while len(data):
            written = os.pwrite(job.reference, data, offset)
            offset += written
            data = data[written:]
    return {
        "draws": [asdict(draw) for draw in reference.outputs],
        "precision": reference.precision,
    }


def _read(descriptor: int, types: Sequence[TensorType], offset: int) -> list[Array]:
    outputs = []
    for t in types:
        data = bytearray()
        while len(data) < t.bytes:
            part = os.pread(descriptor, t.bytes - len(data), offset + len(data))
            if not part:
                raise EOFError("the reference is shorter than the outputs")
            data += part
        outputs.append(np.frombuffer(data, numpy_dtype(t.dtype)).reshape(t.shape))
        offset += t.bytes
    return outputs


def _measure(channel: socket.socket, job: _Job, message: dict[str, Any]) -> dict[str, Any]:
    """Take one candidate through its stages, telling the parent when each begins and ends.

    It ends at once where its module is one of ``message["known"]``. With ``message["wait"]`` it
    waits when it is built, until it is told to run. What was built here lately is not built again.
    """
    from search_spaces.scheduling import schedule

    stage, trace, module = "schedule", "", ""
    seconds: dict[str, float] = {}
    drift: list[float] = []
    started = time.perf_counter()

    def enter(following: str) -> None:
        nonlocal stage, started
        now = time.perf_counter()
        seconds[stage] = now - started
        stage, started = following, now
        wire.send(channel, {"at": stage, "seconds": seconds, "trace": trace})

    candidate: Candidate = wire.candidate_from(message["candidate"])
    outcome: Outcome
    try:
        if job.device is None:
            job.places.build_on(message["cores"])
        kept = job.kept.get(candidate.key)
        if kept is None:
            scheduled = schedule(job.task, job.target, candidate)
            trace, module = scheduled.trace, module_digest(scheduled.module)
        else:
            trace, module = kept.trace, kept.module
        if module in message["known"]:
            seconds[stage] = time.perf_counter() - started
            return {"same": module, "trace": trace, "seconds": seconds}
        enter("build")
        if job.device is None:
            if kept is None:
                kernel = build_kernel(scheduled.module, job.task.workload, job.target)
                kept = _Kept(kernel, trace, module)
            job.keep(candidate, kept)
            if message["wait"]:
                enter("wait")
                message |= wire.receive(channel)[0]
                job.places.run_on(message["cores"])
            enter("verify")
            draws = job.prepare(message["draws"])
            before = job.clock.before()
            outcome = _run(job, draws, kept.kernel, message["best"], enter)
            drift.append(max(before, job.clock.now()))
        else:
            outcome = _run_on_device(channel, job, scheduled.module, message, enter)
    except remote.SessionLost as error:
        return {"lost": str(error)}
    except remote.SessionExpired:
        outcome = TimedOut("run", job.device["limit"] if job.device else 0.0)
    except remote.SessionCrashed as error:
        outcome = Crashed(stage, error.signal, _signal_name(error.signal))
    except InvalidParameters as error:
        outcome = Invalid(str(error)[:_LONGEST])
    except (UnknownSpace, PackingError) as error:
        outcome = BuildFailed(stage, brief(error))
    except Exception as error:  # a space or TVM may raise anything: it becomes the outcome
        if out_of_memory(error):
            outcome = Crashed(stage, 0, f"out of memory: {brief(error)}"[:_LONGEST])
        elif stage in ("schedule", "build"):
            outcome = BuildFailed(stage, brief(error))
        else:
            outcome = Crashed(stage, 0, brief(error))
    seconds[stage] = time.perf_counter() - started
    told = {"outcome": wire.outcome_message(outcome), "trace": trace, "seconds": seconds}
    return told | {"drift": drift[0] if drift else None, "module": module}


def _run(
    job: _Job, draws: Draws, kernel: Kernel, best: float | None, enter: Callable[[str], None]
) -> Outcome:
    """Verify, time, and verify on more inputs what is fast enough to win."""
    hopeless = job.plan.hopeless_at_first(best)
    checked = check(kernel, draws, hopeless)
    if not checked.comparison.right:
        return _refused(checked.comparison)
    enter("run")
    if checked.seconds > hopeless:
        found = checked.comparison
        return Measured(checked.seconds, (checked.seconds,), found.error, found.tolerance)
    cold = job.plan.cache == "cold"
    samples = collect(lambda n: kernel.samples(checked.arguments, n, cold=cold), best, job.plan)
    seconds = estimate(samples)
    found = checked.again()
    if found.right and (best is None or seconds <= job.plan.behind * best):
        found = checked.further()
    if not found.right:
        return _refused(found)
    return Measured(seconds, samples, found.error, found.tolerance)


def _run_on_device(
    channel: socket.socket,
    job: _Job,
    module: Any,
    message: Mapping[str, Any],
    enter: Callable[[str], None],
) -> Outcome:
    """As ``_run``, on the device that the other side of ``channel`` grants."""
    assert job.device is not None
    compiler = job.device["compiler"]
    with (
        remote.packaged(module, job.task.workload, job.target, compiler) as package,
        remote.session(channel, enter) as session,
    ):
        enter("verify")
        kernel = session.load(package)
        draws = job.draws_in(message["draws"], session.allocate)
        return _run(job, draws, kernel, message["best"], enter)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "the process that ran it left"


def _refused(found: Comparison) -> WrongResult:
    return WrongResult(found.error, found.tolerance, found.message)


def _probe(channel: socket.socket, message: Mapping[str, Any]) -> dict[str, Any]:
    """Build and run vector code for a target: whether this machine, or the device, can at all."""
    import tvm

    target = wire.target_from(message["target"])
    if target.cpu and not tvm.target.codegen.llvm_is_valid_cpu(target.cpu, target.triple):
        return {"failed": f"LLVM knows no CPU {target.cpu!r}"}
    kind = TensorType((256, 256), "float32")
    workload = Workload("", "", "", (kind, kind))
    try:
        module = _vector_code(target)
        if message.get("device") is None:
            kernel = build_kernel(module, workload, target)
            source, result = Guarded(kind), Guarded(kind)
            return _doubles(kernel, source, result)
        with (
            remote.packaged(module, workload, target, message["device"]["compiler"]) as package,
            remote.session(channel, lambda stage: wire.send(channel, {"at": stage})) as session,
        ):
            wire.send(channel, {"at": "verify"})
            threads = session.threads()
            there = session.load(package)
            found = _doubles(there, session.allocate(kind), session.allocate(kind))
            return {**found, "threads": threads}
    except remote.SessionLost as error:
        return {"lost": str(error)}
    except remote.SessionCrashed as error:
        return {"failed": _signal_name(error.signal)}
    except Exception as error:  # LLVM refuses a CPU or a feature in several ways
        return {"failed": brief(error)}


def _vector_code(target: Target) -> Any:
    from tvm import IRModule, s_tir, te

    a = te.placeholder((256, 256), name="a")
    b = te.compute((256, 256), lambda i, j: a[i, j] * a[i, j] + a[j, i], name="b")
    schedule = s_tir.Schedule(IRModule({"main": te.create_prim_func([a, b])}))
    outer, inner = schedule.get_loops(schedule.get_sblock("b"))
    schedule.parallel(outer)
    schedule.vectorize(schedule.split(inner, [None, target.lanes()])[1])
    return schedule.mod


def _doubles(kernel: Kernel, source: Buffer, result: Buffer) -> dict[str, Any]:
    source.fill(np.ones(source.array.shape, np.float32))
    kernel.function(source.tensor, result.tensor)
    return {"right": bool((result.array == 2).all())}
