"""Two hundred candidates, a third of them faulty in every way that there is: what is left of it."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGABRT, SIGILL, SIGKILL, SIGSEGV
from types import UnionType

import pytest

from autotune.measure.base import Limits, Measurement
from autotune.measure.local import LocalRunner
from autotune.measure.outcome import BuildFailed, Crashed, Invalid, Measured, TimedOut, WrongResult
from autotune.measure.process import Zygote
from autotune.measure.timing import TimingPlan
from autotune.search.recording import record_of, target_row, workload_row
from search_spaces.task import Candidate, Task
from tests.compiler.measuring import host, matmul
from tests.end_to_end.processes import MARK, marked, needs_proc, wait_for
from tuning_db.database import TuningDatabase
from tuning_db.records import Record

PLUGINS = ["tests.compiler.faulty_spaces", "tests.compiler.torture_spaces"]
LIMITS = Limits(build_seconds=2.0, run_seconds=2.0, memory_bytes=256 << 20)
# Nobody is given up early: each that ran right is checked on all inputs, whatever its time.
PLAN = TimingPlan(hopeless=1e6, behind=1e6, share_seconds=0.02)
TOTAL = 200
MIB = 1 << 20

FAST = [("tiled", 16), ("tiled", 32), ("packed", 16), ("packed", 32)]
"""Several times faster than those below: whole vectors on every thread."""
PLODDING = [("tiled", n) for n in (1, 2, 3, 5, 6, 7)] + [("packed", n) for n in (1, 2)]
PLODDING += [("slow", 1), ("slow", 16)]


@dataclass(frozen=True)
class Fault:
    """``count`` candidates of a space, and the outcome that each of them must have.

    ``message`` is part of the outcome's.
    """

    space: str
    count: int
    kind: type | UnionType
    fields: Mapping[str, object] = field(default_factory=dict)
    message: str = ""


def crashed(space: str, count: int, stage: str, signal: int, message: str = "") -> Fault:
    return Fault(space, count, Crashed, {"stage": stage, "signal": signal}, message)


def wrong(space: str, count: int, message: str) -> Fault:
    return Fault(space, count, WrongResult, {}, message)


def late(space: str, stage: str) -> Fault:
    return Fault(space, 1, TimedOut, {"stage": stage, "limit": 2.0})


FAULTS = [
    # The limits end these.
    late("spins", "build"),
    late("holds_lock", "build"),
    late("spawns", "build"),
    late("unrolled", "build"),
    late("kernel_hangs", "run"),
    late("kernel_spins", "run"),
    crashed("eats", 3, "schedule", 0, "out of memory"),
    # Of memory or, on a busy machine, of time: whichever is used up first.
    Fault("eats_with_children", 2, Crashed | TimedOut),
    # The test ends these, when they have stopped: see ``kill_what_stops``.
    crashed("stops", 2, "schedule", SIGKILL),
    crashed("kernel_stops", 2, "verify", SIGKILL),
    # They end themselves.
    crashed("null_pointer", 2, "schedule", SIGSEGV),
    crashed("wild_write", 3, "verify", SIGSEGV),
    crashed("unknown_symbol", 2, "verify", SIGSEGV),
    crashed("illegal_instruction", 2, "schedule", SIGILL),
    crashed("kernel_traps", 2, "verify", SIGILL),
    crashed("aborts", 2, "verify", SIGABRT),
    crashed("killed", 2, "schedule", SIGKILL),
    crashed("leaves", 2, "schedule", 0),
    crashed("kernel_exits", 3, "verify", 0),
    crashed("kernel_escapes", 2, "verify", 0),
    # They are refused.
    Fault("refuses", 2, Invalid, {}, "tile does not fit"),
    Fault("illegal", 2, BuildFailed, {"stage": "schedule"}),
    Fault("raises", 2, BuildFailed, {"stage": "schedule"}, "ZeroDivisionError"),
    Fault("packs_input", 2, BuildFailed, {"stage": "build"}, "not a constant"),
    # They are wrong.
    wrong("unwritten", 2, "not written"),
    wrong("nan", 2, "NaN"),
    wrong("wrong_element", 2, "error"),
    wrong("overruns", 2, "it writes outside of output 0"),
    wrong("underruns", 2, "it writes outside of output 0"),
    wrong("writes_input", 2, "it writes to input 0"),
    wrong("wrong_on_zeros", 2, "on zeros inputs"),
    wrong("wrong_on_large", 2, "on wide inputs"),
    wrong("loses_updates", 2, ""),
    # They are right, and a nuisance.
    Fault("shouts", 2, Measured),
    Fault("kernel_shouts", 1, Measured),
    Fault("escapes", 1, Measured),
]


@dataclass
class Size:
    """What a process holds."""

    files: int
    bytes: int


@dataclass
class Torture:
    """What the run left, and what it held on its way, by the number of candidates so far."""

    task: Task
    expected: dict[str, Fault | None] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    winner: Record | None = None
    records: int = 0
    ours: dict[int, Size] = field(default_factory=dict)
    zygote: dict[int, Size] = field(default_factory=dict)
    memory_files: list[str] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    temporary: list[Path] = field(default_factory=list)
    seconds: float = 0.0


def size(pid: int) -> Size:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Size(len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGE_SIZE"))


def memory_files() -> list[str]:
    """The files in memory that this process holds."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:  # that of the listing itself
            continue
    return [name for name in found if "memfd:autotune" in name]


def schedule_of_faults() -> list[tuple[Candidate, Fault | None]]:
    """The candidates in an order that is always the same; None: it must be measured."""
    chosen: list[tuple[Candidate, Fault | None]] = []
    for fault in FAULTS:
        for copy in range(fault.count):
            parameters = {"tile": 16, "copy": copy}
            chosen.append((Candidate(f"test.{fault.space}", 1, parameters), fault))
    right = [FAST[n % len(FAST)] for n in range(12)]
    right += [PLODDING[n % len(PLODDING)] for n in range(TOTAL - len(chosen) - len(right))]
    for copy, (space, tile) in enumerate(right):
        chosen.append((Candidate(f"test.{space}", 1, {"tile": tile, "copy": copy}), None))
    random.Random(7).shuffle(chosen)
    return chosen


@contextlib.contextmanager
def kill_what_stops(mark: str) -> Iterator[None]:
    """Kill each process with that mark that has stopped itself, within the block."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for pid in marked(mark):
                with contextlib.suppress(OSError):
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    if stat.rpartition(")")[2].split()[0] == "T":
                        os.kill(pid, SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure_all(torture: Torture, database: TuningDatabase) -> None:
    target, task = host(), torture.task
    database.register_target(target_row(target))
    database.register(workload_row(task))
    run = database.begin_run(target.digest, None, {}, {})
    chosen = schedule_of_faults()
    torture.expected = {candidate.key: fault for candidate, fault in chosen}
    with LocalRunner(target, LIMITS, plugins=PLUGINS, plan=PLAN) as runner:
        results = runner.run(task, [candidate for candidate, _ in chosen])
        for number, measurement in enumerate(results, 1):
            torture.measurements.append(measurement)
            database.add(record_of(task, target, measurement, run=run))
            if number in (50, TOTAL):
                assert runner._zygote is not None
                torture.ours[number] = size(os.getpid())
                torture.zygote[number] = size(runner._zygote.pid)
    torture.winner = database.best(task.workload.key, target.digest)
    torture.records = sum(1 for _ in database.records(run=run))


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torture]:
    mark, temporary = uuid.uuid4().hex, tmp_path_factory.mktemp("temporary")
    made = Torture(matmul(64, 64, 256))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        begun = time.monotonic()
        path = tmp_path_factory.mktemp("database") / "records.db"
        with TuningDatabase.open(path) as database, kill_what_stops(mark):
            measure_all(made, database)
        made.seconds = time.monotonic() - begun
        wait_for(lambda: not marked(mark), 2.0)
        made.left = marked(mark)
    made.memory_files = memory_files()
    made.temporary = list(temporary.rglob("*"))
    print(f"\n{TOTAL} candidates in {made.seconds:.1f} s")
    yield made


pytestmark = [
    needs_proc,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a race needs two processors"),
]


def test_a_third_is_faulty() -> None:
    chosen = schedule_of_faults()
    assert len(chosen) == len({candidate.key for candidate, _ in chosen}) == TOTAL
    assert sum(fault is not None for _, fault in chosen) == pytest.approx(TOTAL / 3, abs=1)


def test_every_candidate_is_accounted_for(torture: Torture) -> None:
    assert [m.candidate.key for m in torture.measurements] == list(torture.expected)
    assert torture.records == len(torture.measurements) == TOTAL


def test_each_has_the_outcome_that_is_its_own(torture: Torture) -> None:
    other = []
    for measurement in torture.measurements:
        fault, outcome = torture.expected[measurement.candidate.key], measurement.outcome
        kind = Measured if fault is None else fault.kind
        fields = {} if fault is None else fault.fields
        message = "" if fault is None else fault.message
        if (
            not isinstance(outcome, kind)
            or any(getattr(outcome, name) != value for name, value in fields.items())
            or message not in getattr(outcome, "message", "")
        ):
            other.append((measurement.candidate, outcome))
    assert not other


def test_the_winner_is_right_and_fast(torture: Torture) -> None:
    assert torture.winner is not None
    fault = torture.expected[torture.winner.candidate]
    assert fault is None or fault.kind is Measured  # of a space that is right, and a nuisance
    winner = next(m for m in torture.measurements if m.candidate.key == torture.winner.candidate)
    name, tile = winner.candidate.space, winner.candidate.parameters["tile"]
    assert fault is not None or (name.removeprefix("test."), tile) in FAST


def test_no_process_is_left(torture: Torture) -> None:
    assert not torture.left


def test_no_file_is_left(torture: Torture) -> None:
    assert not torture.temporary
    assert not torture.memory_files


def test_neither_files_nor_memory_grow(torture: Torture) -> None:
    for name, sizes in (("tuner", torture.ours), ("zygote", torture.zygote)):
        early, late = sizes[50], sizes[TOTAL]
        print(
            f"{name}: {early.files} files and {early.bytes / MIB:.1f} MiB after 50, "
            f"{late.files} and {late.bytes / MIB:.1f} after {TOTAL}"
        )
        # Each worker that is there, or was just discarded, makes a difference of a few files, and
        # there are two at most; what 150 candidates would leave behind is far more.
        assert late.files - early.files <= 8
        assert late.bytes - early.bytes < 8 * MIB


def test_another_worker_costs_a_fraction_of_another_interpreter() -> None:
    task = matmul()
    begun = time.monotonic()
    zygote = Zygote(2, PLUGINS)
    try:
        zygote.wait_ready(60.0)
        fresh = time.monotonic() - begun
    finally:
        zygote.close()
    good, dies = Candidate("test.tiled", 1, {"tile": 16}), Candidate("test.leaves", 1, {"tile": 16})
    warm, replaced = [], []
    with LocalRunner(host(), LIMITS, plugins=PLUGINS, plan=PLAN) as runner:
        next(runner.run(task, [good]))
        for _ in range(10):
            results = runner.run(task, [good, dies, good])
            moments = [time.monotonic()]
            outcomes = []
            for measurement in results:
                moments.append(time.monotonic())
                outcomes.append(type(measurement.outcome))
            assert outcomes == [Measured, Crashed, Measured]
            warm.append(moments[1] - moments[0])
            # From asking for the one that dies: its end, its report, the next one's first look.
            replaced.append(moments[3] - moments[1])
    cost = statistics.median(replaced) - statistics.median(warm)
    print(f"\nanother worker: {cost:.3f} s; another interpreter with TVM: {fresh:.3f} s")
    assert cost < fresh / 10
