"""Good and faulty candidates on the real runner: each gets the outcome that is its own."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.errors import InputError, TargetError
from autotune.measure import wire
from autotune.measure.base import Limits, Measurement, TaskNotMeasurable
from autotune.measure.local import LocalRunner
from autotune.measure.outcome import BuildFailed, Crashed, Invalid, Measured, TimedOut, WrongResult
from autotune.measure.timing import TimingPlan
from search_spaces.task import Candidate, Task
from tests.compiler.measuring import has_flag, host, matmul, task_of

PLUGIN = "tests.compiler.faulty_spaces"


def candidate(name: str, tile: int = 16) -> Candidate:
    return Candidate(f"test.{name}", 1, {"tile": tile})


@pytest.fixture(scope="module")
def runner() -> Iterator[LocalRunner]:
    limits = Limits(build_seconds=3.0, run_seconds=3.0, memory_bytes=512 << 20)
    with LocalRunner(host(), limits, plugins=[PLUGIN]) as made:
        yield made


@pytest.fixture(scope="module")
def task() -> Task:
    return matmul()


def measure(runner: LocalRunner, task: Task, *candidates: Candidate) -> list[Measurement]:
    return list(runner.run(task, candidates))


def test_good_candidates_are_measured_with_all_samples(runner: LocalRunner, task: Task) -> None:
    for result in measure(runner, task, candidate("tiled"), candidate("packed", 8)):
        outcome = result.outcome
        assert isinstance(outcome, Measured), outcome
        assert outcome.seconds == min(outcome.samples) > 0
        assert len(outcome.samples) >= 3
        assert outcome.error <= outcome.tolerance < 1e-3
        assert result.trace
        assert set(result.seconds) == {"schedule", "build", "verify", "run"}


def test_a_module_that_another_candidate_made_is_not_measured_twice(
    runner: LocalRunner, task: Task
) -> None:
    one = Candidate("test.tiled", 1, {"tile": 4})
    other = Candidate("test.tiled", 1, {"tile": 4, "not_read": 1})
    (first,) = measure(runner, task, one)
    (twin,) = measure(runner, task, other)
    assert first.same_as == "" and first.module
    assert (twin.candidate, twin.same_as, twin.module) == (other, one.key, first.module)
    assert twin.outcome == first.outcome and twin.trace == first.trace
    assert set(twin.seconds) == {"schedule"}
    (different,) = measure(runner, task, candidate("tiled", 8))
    assert different.same_as == "" and different.module != first.module
    # The same candidate again is another look at it, as in finals.
    (again,) = measure(runner, task, one)
    assert again.same_as == "" and "run" in again.seconds


def test_a_module_that_an_earlier_run_measured_is_not_measured_again(
    runner: LocalRunner, task: Task
) -> None:
    earlier = Candidate("test.tiled", 1, {"tile": 32})
    (seen,) = measure(runner, task, earlier)
    failed = dataclasses.replace(seen, outcome=Invalid("no"), module="other")
    with LocalRunner(host(), plugins=[PLUGIN]) as later:
        later.remember(task, [failed, seen])
        twin = Candidate("test.tiled", 1, {"tile": 32, "not_read": 1})
        (found,) = measure(later, task, twin)
    assert found.same_as == earlier.key and found.outcome == seen.outcome


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("refuses", Invalid, {"message": "tile does not fit"}),
        ("illegal", BuildFailed, {"stage": "schedule"}),
        ("raises", BuildFailed, {"stage": "schedule"}),
        ("packs_input", BuildFailed, {"stage": "build"}),
        ("unknown_symbol", Crashed, {"stage": "verify", "signal": signal.SIGSEGV}),
        ("wild_write", Crashed, {"stage": "verify", "signal": signal.SIGSEGV}),
        ("null_pointer", Crashed, {"stage": "schedule", "signal": signal.SIGSEGV}),
        ("illegal_instruction", Crashed, {"stage": "schedule", "signal": signal.SIGILL}),
        ("aborts", Crashed, {"stage": "verify", "signal": signal.SIGABRT}),
        ("killed", Crashed, {"stage": "schedule", "signal": signal.SIGKILL}),
        ("leaves", Crashed, {"stage": "schedule", "signal": 0}),
        ("kernel_exits", Crashed, {"stage": "verify", "signal": 0}),
        ("eats", Crashed, {"stage": "schedule", "signal": 0}),
        ("spins", TimedOut, {"stage": "build", "limit": 3.0}),
        ("holds_lock", TimedOut, {"stage": "build", "limit": 3.0}),
        ("spawns", TimedOut, {"stage": "build", "limit": 3.0}),
        ("sleeps", TimedOut, {"stage": "build", "limit": 3.0}),
        ("kernel_hangs", TimedOut, {"stage": "run", "limit": 3.0}),
        ("wrong_element", WrongResult, {}),
        ("nan", WrongResult, {"error": float("inf")}),
        ("shouts", Measured, {}),
    ],
)
def test_each_fault_is_its_outcome_and_the_next_candidate_is_unharmed(
    runner: LocalRunner, task: Task, name: str, kind: type, fields: dict[str, object]
) -> None:
    faulty, good = measure(runner, task, candidate(name), candidate("tiled"))
    assert type(faulty.outcome) is kind, faulty.outcome
    for key, value in fields.items():
        assert getattr(faulty.outcome, key) == value, faulty.outcome
    assert isinstance(good.outcome, Measured), good.outcome


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("overruns", "it writes outside of output 0"),
        ("underruns", "it writes outside of output 0"),
        ("writes_input", "it writes to input 0"),
        ("wrong_on_zeros", "on zeros inputs"),
    ],
)
def test_what_a_comparison_on_random_inputs_does_not_see(
    runner: LocalRunner, name: str, message: str
) -> None:
    task = matmul(24, 40, 16)
    runner.forget(task)  # all inputs are tried only on what could win
    wrong, good = measure(runner, task, candidate(name, 8), candidate("tiled", 8))
    assert isinstance(wrong.outcome, WrongResult), wrong.outcome
    assert message in wrong.outcome.message
    assert isinstance(good.outcome, Measured), good.outcome


def test_only_what_could_win_is_verified_on_further_inputs(runner: LocalRunner) -> None:
    task = matmul(40, 24, 16)
    runner.incumbents[task.workload.key] = 1e-12
    (result,) = measure(runner, task, candidate("wrong_on_zeros", 8))
    assert isinstance(result.outcome, Measured), result.outcome


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a race needs two processors")
def test_a_race_is_seen_by_two_runs_that_differ(runner: LocalRunner) -> None:
    task = matmul(64, 64, 16384)
    racy, good = measure(runner, task, candidate("racy"), candidate("tiled"))
    assert isinstance(racy.outcome, WrongResult), racy.outcome
    assert "two runs" in racy.outcome.message or "a later run" in racy.outcome.message
    assert isinstance(good.outcome, Measured), good.outcome


def test_what_the_reference_was_computed_in_is_known(runner: LocalRunner, task: Task) -> None:
    assert runner.reference_precision(task) == "float64"


def test_memory_that_runs_out_is_named(runner: LocalRunner, task: Task) -> None:
    (result,) = measure(runner, task, candidate("eats"))
    assert isinstance(result.outcome, Crashed)
    assert "out of memory" in result.outcome.message


def test_a_candidate_measured_again_is_not_built_again(runner: LocalRunner, task: Task) -> None:
    one, other = candidate("tiled", 2), candidate("tiled", 32)
    first, second, *rest = (next(runner.run(task, [c])) for c in (one, other, one, other, one))
    for look, before in zip(rest, (first, second, first), strict=True):
        assert isinstance(look.outcome, Measured) and look.trace == before.trace
        assert look.module == before.module and not look.same_as
        spent = look.seconds["schedule"] + look.seconds["build"]
        assert spent < 0.2 * (before.seconds["schedule"] + before.seconds["build"])


def test_worker_killed_from_outside_between_candidates(runner: LocalRunner, task: Task) -> None:
    results = runner.run(task, [candidate("tiled"), candidate("tiled", 8), candidate("tiled", 4)])
    assert isinstance(next(results).outcome, Measured)
    # The second one is built meanwhile, in the other lane.
    assert runner._lanes[1].worker is not None
    os.kill(runner._lanes[1].worker.pid, signal.SIGKILL)
    # It had run nothing yet: it is built again, and nothing is lost.
    assert isinstance(next(results).outcome, Measured)
    assert isinstance(next(results).outcome, Measured)


def test_run_left_in_the_middle_leaves_a_usable_runner(runner: LocalRunner, task: Task) -> None:
    results = runner.run(task, [candidate("tiled"), candidate("tiled", 8)])
    next(results)
    results.close()
    assert isinstance(measure(runner, task, candidate("packed"))[0].outcome, Measured)


def test_clearly_slower_than_the_incumbent_stops_early(runner: LocalRunner) -> None:
    task = matmul(64, 32, 64)
    runner.incumbents[task.workload.key] = 1e-12
    (result,) = measure(runner, task, candidate("tiled"))
    assert isinstance(result.outcome, Measured)
    assert len(result.outcome.samples) == 3


def test_no_process_and_no_descriptor_is_left(task: Task) -> None:
    before = descriptors()
    limits = Limits(build_seconds=1.0, run_seconds=1.0)
    runner = LocalRunner(host(), limits, plugins=[PLUGIN])
    measure(runner, task, candidate("tiled"), candidate("spawns"), candidate("wild_write"))
    assert runner._zygote is not None
    session = runner._zygote.pid
    assert processes(session)
    runner.close()
    runner.close()
    assert processes(session) == []
    assert descriptors() == before


def test_zygote_killed_from_outside_is_started_again(task: Task) -> None:
    with LocalRunner(host(), plugins=[PLUGIN]) as runner:
        batch = [candidate("tiled", n + 1) for n in range(len(runner._lanes) + 2)]
        results = runner.run(task, batch)
        assert isinstance(next(results).outcome, Measured)
        assert runner._zygote is not None
        os.kill(runner._zygote.pid, signal.SIGKILL)
        # Its workers die with it: what each of them had in hand may be lost, and no more.
        rest = [measurement.outcome for measurement in results]
    assert len(rest) == len(batch) - 1
    assert all(isinstance(outcome, Crashed | Measured) for outcome in rest)
    assert isinstance(rest[-1], Measured)


def test_reference_that_takes_too_long_sets_the_task_aside(task: Task) -> None:
    with (
        LocalRunner(host(), plugins=[PLUGIN], reference_seconds=1e-4) as runner,
        pytest.raises(TaskNotMeasurable, match="matmul"),
    ):
        next(runner.run(task, [candidate("tiled")]))


def test_positive_inputs_where_negative_ones_have_no_result(runner: LocalRunner) -> None:
    from tvm import te

    a = te.placeholder((8, 32), name="A")
    root = te.compute((8, 32), lambda i, j: te.log(a[i, j]), name="B")
    log = task_of("log", [a, root])
    (result,) = measure(runner, log, candidate("tiled"))
    assert isinstance(result.outcome, Measured), result.outcome
    assert runner._references[log.workload.key].draws[0]["variant"] == "positive"


def test_integers_are_compared_exactly(runner: LocalRunner) -> None:
    from tvm import te

    a = te.placeholder((8, 32), name="A", dtype="int8")
    c = te.compute((8, 32), lambda i, j: a[i, j].astype("int32") * 3, name="B")
    (result,) = measure(runner, task_of("triple", [a, c]), candidate("tiled"))
    assert isinstance(result.outcome, Measured), result.outcome
    assert (result.outcome.error, result.outcome.tolerance) == (0.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"triple": "riscv64-unknown-linux-gnu"},
        {"kind": "cuda"},
        {"cpu": "no-such-cpu"},
        pytest.param(
            {"cpu": "skylake-avx512", "features": ("+avx512f",)},
            marks=pytest.mark.skipif(has_flag("avx512f"), reason="this machine has AVX-512"),
        ),
    ],
)
def test_target_of_another_machine_is_refused(task: Task, change: dict[str, object]) -> None:
    with pytest.raises(TargetError), LocalRunner(dataclasses.replace(host(), **change)) as runner:  # type: ignore[arg-type]
        next(runner.run(task, [candidate("tiled")]))


def test_everything_ends_when_the_tuner_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "tuner.py"
    script.write_text(
        "from tests.compiler.measuring import host, matmul\n"
        "from autotune.measure.local import LocalRunner\n"
        "from search_spaces.task import Candidate\n"
        f"runner = LocalRunner(host(), plugins=[{PLUGIN!r}])\n"
        "tiled, hangs = (Candidate(f'test.{n}', 1, {'tile': 8}) for n in ('tiled', 'holds_lock'))\n"
        "for _ in runner.run(matmul(), [tiled, hangs]):\n"
        "    print(runner._zygote.pid, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as tuner:
        assert tuner.stdout is not None
        session = int(tuner.stdout.readline())
        assert len(processes(session)) >= 2
        tuner.kill()
    deadline = time.monotonic() + 5
    while processes(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes(session) == []


def processes(session: int) -> list[str]:
    """Every live process of that session, by its command line."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(text)
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


_BUSY = "while True: pass"


def test_a_busy_machine_shows_in_the_time_of_the_fixed_kernel(runner: LocalRunner) -> None:
    task, tiles = matmul(64, 64, 64), itertools.count(1)

    def drift() -> list[float]:
        found = [measure(runner, task, candidate("tiled", next(tiles)))[0] for _ in range(6)]
        return [result.drift_seconds or 0.0 for result in found]

    for _ in range(4):  # others may have been as busy while we were not
        quiet = drift()
        # Three for each core: a thread of the kernel gets a quarter of one.
        load = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(3 * os.cpu_count())]
        try:
            busy = drift()
        finally:
            for process in load:
                process.kill()
                process.wait()
        assert min(*quiet, *busy) > 0
        if max(busy) > 1.2 * min(quiet):
            break
    assert max(busy) > 1.2 * min(quiet)


needs_two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs a core to build on beside the one that measures"
)


@needs_two_cpus
def test_with_a_core_left_over_builds_go_on_while_one_is_measured() -> None:
    batch = [candidate("tiled", n) for n in (1, 2, 4, 8, 16, 32)] + [candidate("wild_write")]
    with LocalRunner(host(1), plugins=[PLUGIN], cores=2) as runner:
        found = measure(runner, matmul(64, 64, 64), *batch, candidate("packed"))
    kinds = [type(f.outcome) for f in found]
    assert kinds == [*[Measured] * 6, Crashed, Measured]
    assert [f.candidate.key for f in found[:7]] == [c.key for c in batch]


def test_fewer_cores_than_threads_are_refused() -> None:
    with pytest.raises(InputError, match="--cores"):
        LocalRunner(host(2), cores=1)


def test_cold_caches_are_slower_where_weights_are_read_once() -> None:
    task = matmul(1, 1024, 1024)
    seconds = {}
    for cache in ("hot", "cold", "hot", "cold"):
        with LocalRunner(host(1), plugins=[PLUGIN], plan=TimingPlan(cache=cache)) as runner:
            (found,) = measure(runner, task, candidate("tiled", 32))
        assert isinstance(found.outcome, Measured)
        seconds[cache] = min(found.outcome.seconds, seconds.get(cache, 1.0))
    assert seconds["cold"] > 1.1 * seconds["hot"]


def test_nobody_is_left_to_be_answered() -> None:
    """As when the tuner is killed while it waits: the zygote ends, and says nothing."""
    ours, theirs = socket.socketpair()
    zygote = subprocess.Popen(
        [sys.executable, "-m", "autotune.measure.worker", str(theirs.fileno())],
        env={**os.environ, "TVM_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    with ours:
        assert wire.receive(ours)[0] == {"ready": zygote.pid}
        channel, peer = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        wire.send(ours, {"do": "fork", "memory": 1 << 30}, [channel.fileno(), null])
    _, said = zygote.communicate(timeout=60)
    os.close(null)
    channel.close()
    peer.close()
    assert (zygote.returncode, said) == (0, b"")
