"""Measuring on a Ray cluster: two hosts of it on this machine, killed when it hurts most."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import DeviceError, TargetError
from autotune.measure.base import Limits, Measurement, Runner
from autotune.measure.cluster import RayRunner
from autotune.measure.outcome import Crashed, Measured, TimedOut
from autotune.search.budget import Budget
from autotune.search.loop import tune_tasks
from autotune.search.progress import Progress
from autotune.search.settings import SearchSettings
from autotune.target import native
from search_spaces.registry import unregister
from search_spaces.task import Task
from tests.compiler.devices import free_port
from tests.compiler.measuring import matmul
from tests.compiler.test_runner_contract import PLUGIN, Candidates, candidate
from tests.end_to_end.processes import wait_for
from tuning_db.database import TuningDatabase

ray = pytest.importorskip("ray", reason="the runner for clusters needs ray: autotune[ray]")

LIMITS = Limits(build_seconds=5.0, run_seconds=2.0, memory_bytes=512 << 20)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of Ray itself


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    yield made
    ray.shutdown()
    made.shutdown()


def runner_of(cluster: Any, **changed: Any) -> RayRunner:
    options: dict[str, Any] = {
        "plugins": [PLUGIN, "tests.compiler.search_plugin"],
        "wait_seconds": 60.0,
        **changed,
    }
    target = options.pop("target", native(2))
    return RayRunner(target, cluster.address, LIMITS, **options)


@pytest.fixture(scope="module")
def shared(cluster: Any) -> Iterator[RayRunner]:
    with runner_of(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def task() -> Task:
    return matmul()


@pytest.fixture
def steady(shared: RayRunner) -> RayRunner:
    """The runner with both of its hosts ready, as if they had never lost an actor."""
    wait_for_hosts(shared)
    for host in shared._hosts.values():
        host.losses = 0
    return shared


def wait_for_hosts(runner: RayRunner, count: int = 2) -> None:
    end = time.monotonic() + 60
    while len(runner._ready()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


def actors(runner: RayRunner) -> set[int]:
    """The processes of its actors."""
    return {host.process for host in runner._hosts.values()}


def beneath(process: int) -> list[int]:
    """All that a process started, directly or not."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    found = [int(pid) for pid in text.split()]
    return found + [inner for pid in found for inner in beneath(pid)]


def running(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_hosts_that_are_not_the_target_are_left_out(cluster: Any, task: Task) -> None:
    told: list[str] = []
    target = replace(native(2), model="another")
    refused = pytest.raises(TargetError, match="the target is another.*autotune target show")
    with runner_of(cluster, target=target, status=told.append) as made, refused:
        list(made.run(task, [candidate("tiled")]))
    assert told and all("cannot measure" in line for line in told)


class TestRayRunner(Candidates):
    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, shared: RayRunner) -> Runner:
        return shared


def test_both_hosts_measure_and_what_is_compared_stays_on_one(
    steady: RayRunner, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    plain = steady._sent

    def note(host: Any, *rest: Any) -> Any:
        sent.append(host.identity)
        return plain(host, *rest)

    monkeypatch.setattr(steady, "_sent", note)
    wanted = [candidate("tiled", tile) for tile in (2, 4, 8, 16)]
    found = list(steady.run(task, wanted))
    assert sorted(m.candidate.key for m in found) == sorted(one.key for one in wanted)
    assert len(sent) == len(set(sent)) == 2 == steady.parallel
    del sent[:]
    for one in wanted[:2] * 2:
        steady.forget(task)
        (measurement,) = steady.run(task, [one])
        assert isinstance(measurement.outcome, Measured)
    assert (len(sent), len(set(sent))) == (4, 1)


def test_workers_that_are_killed_are_outcomes_and_their_actors_live(
    steady: RayRunner, task: Task
) -> None:
    before = actors(steady)
    (found,) = steady.run(task, [candidate("wild_write")])
    assert isinstance(found.outcome, Crashed) and found.outcome.signal == signal.SIGSEGV
    killed = [process for actor in before for process in beneath(actor)]
    assert killed, "the processes in which candidates run"
    for process in killed:
        with contextlib.suppress(ProcessLookupError):  # with the one it was forked from
            os.kill(process, signal.SIGKILL)
    assert wait_for(lambda: not any(running(process) for process in killed), 20)
    wanted = [candidate("tiled", tile) for tile in (4, 8)]
    for found in steady.run(task, wanted):
        outcome = found.outcome  # the first of a host may be with what was just being killed
        killed_with = isinstance(outcome, Crashed) and "killed from outside" in outcome.message
        assert killed_with or isinstance(outcome, Measured), outcome
    again = list(steady.run(task, wanted))
    assert all(isinstance(measurement.outcome, Measured) for measurement in again), again
    assert actors(steady) == before


def test_an_actor_that_is_killed_starts_again_and_nothing_is_lost(
    steady: RayRunner, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = actors(steady)
    told: list[str] = []
    monkeypatch.setattr(steady, "_status", told.append)
    # While one host waits for kernels that never end, the other one measures.
    endless = [candidate("kernel_hangs", tile) for tile in (4, 8)]
    quick = [candidate("tiled", tile) for tile in (4, 8)]
    came: dict[str, Measurement] = {}
    for measurement in steady.run(task, [*endless, *quick]):
        if not came:
            for actor in before:
                os.kill(actor, signal.SIGKILL)
        assert measurement.candidate.key not in came
        came[measurement.candidate.key] = measurement
    assert all(isinstance(came[one.key].outcome, TimedOut) for one in endless), came
    assert all(isinstance(came[one.key].outcome, Measured) for one in quick), came
    assert any("was lost" in line for line in told)
    wait_for_hosts(steady)
    assert not actors(steady) & before


def test_what_was_with_two_actors_that_died_has_crashed(
    steady: RayRunner, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    plain = steady._sent

    def killed(host: Any, *rest: Any) -> Any:
        flight = plain(host, *rest)
        sent.append(host.process)
        os.kill(host.process, signal.SIGKILL)
        return flight

    with monkeypatch.context() as patched:
        patched.setattr(steady, "_sent", killed)
        (found,) = steady.run(task, [candidate("tiled")])
    assert isinstance(found.outcome, Crashed) and "lost twice" in found.outcome.message
    assert len(set(sent)) == 2
    (good,) = steady.run(task, [candidate("tiled")])
    assert isinstance(good.outcome, Measured)


def test_a_host_is_never_shared_by_two_searches(
    cluster: Any, steady: RayRunner, task: Task
) -> None:
    before = actors(steady)
    busy = pytest.raises(DeviceError, match="every host of the Ray cluster was in use for 2 s")
    with runner_of(cluster, wait_seconds=2.0) as other, busy:
        list(other.run(task, [candidate("tiled")]))
    wait_for_hosts(steady)
    assert actors(steady) == before


def test_hosts_join_and_leave_during_a_search_whose_database_stays_here(
    cluster: Any, steady: RayRunner, tmp_path: Path
) -> None:
    from tests.compiler import search_plugin

    search_plugin.register(search_plugin.Loops())
    trials = 12
    joined: list[Any] = []
    settings = SearchSettings(budget=Budget(trials), sampler="random", batch=4, rounds=0)
    try:
        with TuningDatabase.open(tmp_path / "tuning.db") as database:

            def change(progress: Progress) -> None:
                if progress.done == 1:
                    joined.append(cluster.add_node(num_cpus=2))
                    wait_for_hosts(steady, 3)
                elif progress.done == 6:  # of nine, of which each host has a part
                    cluster.remove_node(joined.pop())

            summary = tune_tasks(
                [matmul(128, 128, 128)], steady.target, steady, database, settings, change
            )
            records = list(database.records())
            assert summary.stopped == "budget"
            assert len(steady._ready()) == 2
            assert [record.outcome for record in records] == ["measured"] * trials
            assert len({record.candidate for record in records}) == trials
            assert {record.target for record in records} == {native(2).digest}
    finally:
        unregister(search_plugin.Loops.name)
        for node in joined:
            cluster.remove_node(node)


def test_a_job_measures_on_the_cluster(cluster: Any, steady: RayRunner, tmp_path: Path) -> None:
    from tests.end_to_end.models import autotune, layers

    layers(tmp_path / "layers.onnx")
    (tmp_path / "jobs.toml").write_text(
        f"""
        trials = 4
        [[models]]
        path = "layers.onnx"
        [[targets]]
        name = "cluster"
        threads = 2
        ray = "{cluster.address}"
        """
    )
    node = cluster.add_node(num_cpus=2)  # all others are in use
    try:
        told = autotune("job", "run", "jobs.toml", "--json", folder=tmp_path).stdout
    finally:
        cluster.remove_node(node)
    (entry,) = json.loads(told)["entries"]
    assert (entry["state"], entry["trials"]) == ("done", 4)
    assert (tmp_path / entry["artifact"] / "lib.so").is_file()


def test_a_cluster_that_does_not_answer_is_named() -> None:
    from autotune.measure.cluster import _connect

    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(DeviceError, match=f"no Ray cluster answers at {address}.*ray start"):
        _connect(ray, address)
