"""Which core each thread of a worker runs on.

TVM binds the threads of its pool but not the one that starts a kernel. A worker that built its
candidate on any core may start it on the very core that a thread of its pool is bound to: until
the system moves one of them the kernel takes twice its time. So every thread gets a core here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def set_apart(cpus: Sequence[int], topology: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """The logical CPUs in an order in which those that share a core come as late as they can."""
    rank: dict[str, int] = {}
    ordered = []
    for cpu in sorted(cpus):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            core = "/".join((folder / n).read_text() for n in ("physical_package_id", "core_id"))
        except OSError:
            core = f"cpu{cpu}"
        rank[core] = rank.get(core, 0) + 1
        ordered.append((rank[core], cpu))
    return [cpu for _, cpu in sorted(ordered)]


class Places:
    """Moves the threads of this process; made before the first parallel kernel runs in it."""

    def __init__(self) -> None:
        self._pool: list[int] | None = None

    def build_on(self, cores: Sequence[int]) -> None:
        """Let the main thread work on any of ``cores``; no cores: stay."""
        if cores:
            os.sched_setaffinity(0, cores)

    def run_on(self, cores: Sequence[int]) -> None:
        """Give the main thread and each of TVM's pool one of ``cores``; no cores: stay.

        Where they are fewer than the threads, all threads share them.
        """
        if not cores:
            return
        pool = self._threads()
        shared = len(cores) < len(pool) + 1
        for place, thread in enumerate((0, *pool)):
            os.sched_setaffinity(thread, cores if shared else cores[place : place + 1])

    def _threads(self) -> list[int]:
        """The threads of TVM's pool, which the first parallel kernel makes."""
        if self._pool is None:
            from autotune.measure.drift import run_once

            before = _all_threads()
            run_once()
            self._pool = sorted(_all_threads() - before)
        return self._pool


def _all_threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}
