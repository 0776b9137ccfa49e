"""TVM's pool uses exactly the threads that are asked for. Each case needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KERNEL = """
import os, time
from pathlib import Path
import tvm, numpy as np
from tvm import te
from autotune.errors import TargetError
from autotune.threads import set_threads

def worked():
    '''Nanoseconds of CPU time of each thread of this process.'''
    folders = Path("/proc/self/task").iterdir()
    return {f.name: int((f / "schedstat").read_text().split()[0]) for f in folders}

def run():
    '''How many threads the same kernel, run again and again, keeps busy.'''
    a = te.placeholder((4096, 64), name="a")
    c = te.compute((4096, 64), lambda i, j: a[i, j] * 2, name="c")
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": te.create_prim_func([a, c])}))
    schedule.parallel(schedule.get_loops(schedule.get_sblock("c"))[0])
    kernel = tvm.tirx.build(schedule.mod, "llvm")
    x = tvm.runtime.tensor(np.ones((4096, 64), "float32"))
    y = tvm.runtime.tensor(np.zeros((4096, 64), "float32"))
    kernel["main"](x, y)
    time.sleep(0.2)  # workers spin for a while before they sleep
    before = worked()
    for _ in range(500):
        kernel["main"](x, y)
    after = worked()
    assert (y.numpy() == 2).all()
    return sum(after[t] - before.get(t, 0) > 100_000 for t in after)
"""


def child(program: str, variable: str | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"}
    if variable is not None:
        environment["TVM_NUM_THREADS"] = variable
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


two_cpus = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs and /proc",
)


@two_cpus
@pytest.mark.parametrize("threads", [1, 2])
def test_set_before_tvm_is_imported(threads: int) -> None:
    first = f"from autotune.threads import set_threads\nset_threads({threads})\n"
    assert child(first + KERNEL + "\nprint(run())") == str(threads)


@two_cpus
@pytest.mark.parametrize("threads", [1, 2])
def test_set_after_tvm_is_imported(threads: int) -> None:
    # The environment says the opposite, which must not win.
    program = KERNEL + f"\nset_threads({threads})\nprint(run())"
    assert child(program, variable=str(3 - threads)) == str(threads)


@two_cpus
def test_a_pool_that_cannot_grow_any_more_is_an_error_with_a_cure() -> None:
    program = (
        KERNEL
        + "\nset_threads(1)\nrun()\n"
        + "try:\n    set_threads(2)\nexcept TargetError as error:\n    print(error)"
    )
    assert "TVM_NUM_THREADS=2" in child(program)


FEWER = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
mine = os.sched_getaffinity(0)
"""


@two_cpus
def test_no_thread_leaves_the_cores_that_the_process_was_given() -> None:
    program = """
set_threads(1)
run()
masks = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
print(all(mask == mine for mask in masks))
"""
    assert child(FEWER + KERNEL + program) == "True"


@two_cpus
def test_the_thread_that_makes_the_pool_may_run_anywhere_afterwards() -> None:
    program = "before = os.sched_getaffinity(0)\nset_threads(1)\nrun()\n"
    assert child(KERNEL + program + "print(os.sched_getaffinity(0) == before)") == "True"
