"""Threads of a worker, each on a core of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, sys
counts = {n: "1" for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
os.environ |= counts | {"TVM_NUM_THREADS": sys.argv[1], "TVM_BIND_THREADS": "0"}
from autotune.measure.cores import Places
places, cores = Places(), sorted(os.sched_getaffinity(0))[:2]

def where():
    threads = sorted(os.listdir("/proc/self/task"))
    return [sorted(os.sched_getaffinity(int(thread))) for thread in threads]

places.run_on(cores)
running = where()
places.build_on(cores)
building = where()
places.run_on(cores)
print(json.dumps([cores, running, building, where()]))
"""


def places(threads: int) -> list[list[list[int]]]:
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[list[list[int]]] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_no_two_threads_of_a_kernel_share_a_core() -> None:
    cores, running, building, again = places(2)
    assert sorted(running) == [[core] for core in cores]
    assert again == running
    assert sorted(building, key=len) == [[cores[1]], cores]  # the main thread may build anywhere


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_more_threads_than_cores_share_them() -> None:
    cores, running, _, _ = places(3)
    assert running == [cores] * 3
