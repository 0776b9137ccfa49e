"""Measuring over TVM's RPC: tracker and servers on this machine, killed when it hurts most."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.errors import DeviceError, InputError, TargetError
from autotune.measure.base import Limits, Measurement, Runner
from autotune.measure.outcome import BuildFailed, Crashed, Measured, TimedOut, WrongResult
from autotune.measure.rpc import RPCRunner
from autotune.measure.timing import TimingPlan
from autotune.measure.tracker import Tracker
from autotune.search.budget import Budget
from autotune.search.loop import tune_tasks
from autotune.search.settings import SearchSettings
from search_spaces.registry import unregister
from search_spaces.task import Candidate, Target, Task
from tests.compiler.devices import Devices, free_port, kill
from tests.compiler.measuring import host, matmul
from tests.compiler.test_runner_contract import PLUGIN, Candidates, candidate
from tuning_db.database import TuningDatabase

pytest.importorskip("tornado", reason="TVM's tracker needs tornado")

LIMITS = Limits(build_seconds=3.0, run_seconds=2.0, memory_bytes=512 << 20)
Server = subprocess.Popen[bytes]


def on(key: str) -> Target:
    return replace(host(), device=key)


@pytest.fixture(scope="module")
def devices() -> Iterator[Devices]:
    with Devices() as started:
        yield started


@pytest.fixture(scope="module")
def server(devices: Devices) -> Server:
    return devices.serve("board")


@pytest.fixture(scope="module")
def shared(devices: Devices, server: Server) -> Iterator[RPCRunner]:
    with runner_of(devices, "board") as made:
        yield made


def runner_of(devices: Devices, key: str) -> RPCRunner:
    return RPCRunner(on(key), devices.tracker, LIMITS, wait_seconds=20.0, plugins=[PLUGIN])


class TestRPCRunner(Candidates):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, shared: RPCRunner) -> Runner:
        return shared


@pytest.fixture(scope="module")
def task() -> Task:
    return matmul()


def measure(runner: Runner, task: Task, *candidates: Candidate) -> list[Measurement]:
    return list(runner.run(task, candidates))


@pytest.mark.parametrize(
    ("name", "number"),
    [("wild_write", signal.SIGSEGV), ("aborts", signal.SIGABRT), ("kernel_exits", 0)],
)
def test_the_signal_of_a_crash_on_the_device_is_known(
    shared: RPCRunner, server: Server, task: Task, name: str, number: int
) -> None:
    crashed, good = measure(shared, task, candidate(name), candidate("tiled"))
    assert isinstance(crashed.outcome, Crashed), crashed.outcome
    assert (crashed.outcome.stage, crashed.outcome.signal) == ("verify", number)
    assert crashed.trace and "build" in crashed.seconds
    assert isinstance(good.outcome, Measured)
    assert server.poll() is None


def test_an_endless_kernel_frees_the_device_when_its_time_is_over(
    shared: RPCRunner, task: Task
) -> None:
    begun = time.monotonic()
    endless, good = measure(shared, task, candidate("kernel_hangs"), candidate("packed", 8))
    assert endless.outcome == TimedOut("run", LIMITS.run_seconds)
    assert isinstance(good.outcome, Measured)
    assert time.monotonic() - begun < LIMITS.run_seconds + 3.0


def test_further_inputs_are_checked_on_the_device(shared: RPCRunner) -> None:
    (wrong,) = measure(shared, matmul(24, 40, 16), candidate("wrong_on_zeros", 8))
    assert isinstance(wrong.outcome, WrongResult), wrong.outcome
    assert "on zeros inputs" in wrong.outcome.message


@pytest.mark.parametrize(
    ("compiler", "kind"), [(None, Measured), ("cc", Measured), ("no-such-compiler", BuildFailed)]
)
def test_linked_on_the_device_or_by_a_given_compiler(
    shared: RPCRunner,
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    compiler: str | None,
    kind: type,
) -> None:
    monkeypatch.setattr(shared, "_compiler", compiler)
    shared._discard()  # a worker is told once for each task how to link
    (found,) = measure(shared, task, candidate("packed", 8))
    shared._discard()
    assert type(found.outcome) is kind, found.outcome


def test_a_server_that_comes_back_in_time_loses_nothing(devices: Devices, task: Task) -> None:
    servers = [devices.serve("comes-back")]
    told: list[str] = []
    sessions: list[str] = []

    def restart(line: str) -> None:
        told.append(line)
        if len(servers) == 1 and servers[0].poll() is not None:
            servers.append(devices.serve("comes-back"))

    wanted = [candidate("tiled", tile) for tile in (4, 8, 16)]
    with runner_of(devices, "comes-back") as runner:
        runner._status = restart
        plain = runner._entered

        def entered(message, worker, deadline):  # type: ignore[no-untyped-def]
            if message["at"] == "run" and len(came) == 1 and len(servers) == 1:
                sessions.extend(children(servers[0]))
                servers[0].kill()  # alone: its session must end by itself
                servers[0].wait()
            return plain(message, worker, deadline)

        runner._entered = entered  # type: ignore[method-assign]
        came: list[Measurement] = []
        for measurement in runner.run(task, wanted):
            came.append(measurement)
    assert [m.candidate for m in came] == wanted
    assert all(isinstance(m.outcome, Measured) for m in came), came
    assert len(servers) == 2 and all("comes-back" in line for line in told)
    assert not any(alive(session) for session in sessions)


def test_a_server_that_stays_away_is_reported_and_what_was_measured_is_kept(
    devices: Devices, tmp_path: Path
) -> None:
    from tests.compiler import search_plugin

    search_plugin.register(search_plugin.Loops())
    server = devices.serve("goes")
    target = on("goes")
    settings = SearchSettings(budget=Budget(12), sampler="random", batch=4)
    try:
        with (
            TuningDatabase.open(tmp_path / "tuning.db") as database,
            RPCRunner(
                target,
                devices.tracker,
                LIMITS,
                wait_seconds=15.0,
                plugins=["tests.compiler.search_plugin"],
                plan=TimingPlan(most=3),
            ) as runner,
        ):

            def stop(progress: object) -> None:
                nonlocal gone
                if not gone and len(list(database.records())) == 3:
                    kill(server)
                    runner._wait_seconds = 1.5
                    gone = time.monotonic()

            gone = 0.0
            with pytest.raises(DeviceError, match="no device 'goes'.*autotune device"):
                tune_tasks([matmul(128, 128, 128)], target, runner, database, settings, stop)
            assert 1.0 < time.monotonic() - gone < 6.0
            records = list(database.records())
            assert [record.outcome for record in records] == ["measured"] * 3
            assert {record.target for record in records} == {target.digest}
            assert list(database.records(target=on("other").digest)) == []
    finally:
        unregister(search_plugin.Loops.name)


def test_tvms_own_servers_end_with_a_crash_and_that_is_told(devices: Devices, task: Task) -> None:
    for _ in range(2):
        devices.serve_by_tvm("plain")
    with runner_of(devices, "plain") as runner:
        wanted = [candidate("tiled"), candidate("wild_write"), candidate("packed", 8)]
        results = runner.run(task, wanted)
        assert isinstance(next(results).outcome, Measured)
        crashed = next(results).outcome
        assert isinstance(crashed, Crashed) and "lost twice" in crashed.message, crashed
        runner._wait_seconds = 1.0
        with pytest.raises(DeviceError, match="no device 'plain'"):
            next(results)


def test_a_tracker_that_does_not_answer_is_named() -> None:
    tracker = Tracker("127.0.0.1", free_port())
    begun = time.monotonic()
    with pytest.raises(DeviceError, match=f"no RPC tracker answers at {tracker}.*rpc_tracker"):
        tracker.lease("board", begun + 1.0)
    assert 0.9 < time.monotonic() - begun < 5.0


def test_a_device_in_use_is_told_from_one_that_is_missing(devices: Devices, server: Server) -> None:
    from tvm import rpc

    lease = devices.tracker.lease("board", time.monotonic() + 20)
    held = rpc.connect(lease.host, lease.port, lease.match)
    try:
        with pytest.raises(DeviceError, match="every device 'board' .* is in use"):
            devices.tracker.lease("board", time.monotonic())
    finally:
        held.get_function("CloseRPCConnection")()
    with pytest.raises(DeviceError, match="no device 'missing'"):
        devices.tracker.lease("missing", time.monotonic())


def test_too_few_threads_and_foreign_code_are_refused_before_any_candidate(
    shared: RPCRunner, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_probed", False)
    monkeypatch.setattr(shared, "target", replace(on("board"), threads=3))
    with pytest.raises(TargetError, match="--threads"):
        measure(shared, task, candidate("tiled"))
    arm = Target("llvm", "aarch64-linux-gnu", "generic", ("+neon",), "arm", 2, 2, device="board")
    monkeypatch.setattr(shared, "target", arm)
    monkeypatch.setattr(shared, "_compiler", None)
    with pytest.raises(TargetError, match="does not work on the device 'board'"):
        measure(shared, task, candidate("tiled"))


def test_what_names_no_device_is_refused() -> None:
    with pytest.raises(TargetError, match="--key"):
        RPCRunner(host(), "127.0.0.1:9190")
    for address in ("", "9190", "host:", "host:port", ":9190", "host:99999"):
        with pytest.raises(InputError, match="HOST:PORT"):
            RPCRunner(on("board"), address)


def test_the_key_is_part_of_the_target() -> None:
    assert on("a").digest != on("b").digest != host().digest
    assert replace(on("a"), device="").digest == host().digest


def children(process: Server) -> list[str]:
    """The process ids of what ``process`` started."""
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def alive(process: str) -> bool:
    """Whether it is there and no zombie, after a second at most."""
    for _ in range(50):
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return False
        if stat.rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.02)
    return True
