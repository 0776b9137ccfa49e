"""What runs in the child processes: a zygote that only forks, and the workers it forks.

Started as ``python -m autotune.measure.worker FD MODULE…``. The zygote imports TVM and the search
spaces once, compiles a first function so that everything lazy is loaded, and never runs a kernel:
TVM's thread pool does not survive a fork. A worker measures candidates until it is told to stop,
dies, or is killed; nothing here enforces a limit except that on memory. What a worker leaves behind
when it ends, in whatever session, becomes a child of the zygote, which ends it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from autotune.measure import wire

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MOST_ROUNDS = 1000
"""Of ending orphans: each makes orphans of their children, and a few may fork meanwhile."""


def zygote(control: socket.socket, plugins: list[str]) -> None:
    """Serve requests to fork and to reap, until the other side closes ``control``."""
    try:
        _prepare(plugins)
    except Exception as error:  # whatever a plugin or TVM raises is the caller's to report
        _answered(control, {"failed": f"{type(error).__name__}: {error}"})
        return
    libc = ctypes.CDLL(None, use_errno=True)
    helpers = _children()  # of plugins, if they started any
    workers: set[int] = set()
    if helpers is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    answer = {"ready": os.getpid()}
    while _answered(control, answer) and (request := _request(control)) is not None:
        message, descriptors = request
        if message["do"] == "reap":
            _, status = os.waitpid(message["pid"], 0)
            workers.discard(message["pid"])
            _end_orphans(None if helpers is None else helpers | workers)
            answer = {"status": status}
        else:
            pid = _fork(libc, control, descriptors, message["memory"])
            workers.add(pid)
            answer = {"pid": pid}
    for pid in workers:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _end_orphans(helpers)


def _answered(control: socket.socket, answer: wire.Message) -> bool:
    """Whether anybody was left to be answered: who asked may have been killed meanwhile."""
    try:
        wire.send(control, answer)
    except OSError:
        return False
    return True


def _request(control: socket.socket) -> tuple[wire.Message, list[int]] | None:
    """The next request; None where nobody is left to ask."""
    try:
        return wire.receive(control)
    except (EOFError, OSError):
        return None


def _fork(libc: Any, control: socket.socket, descriptors: list[int], memory: int) -> int:
    """A new worker's process id."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _become_worker(libc, parent, descriptors, memory)
    os.setpgid(pid, pid)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _children() -> set[int] | None:
    """Every child of this process; None where the kernel does not tell."""
    try:
        found = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        return None
    return {int(pid) for text in found for pid in text.split()} if found else None


def _end_orphans(spared: set[int] | None) -> None:
    """End every child but those; nothing where the children are not known (None)."""
    if spared is None:
        return
    for _ in range(_MOST_ROUNDS):
        orphans = (_children() or set()) - spared
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            os.waitpid(pid, 0)
        if not orphans:
            return


def _prepare(plugins: list[str]) -> None:
    from autotune.compiler import light_import
    from autotune.lean import without_torch

    without_torch()
    light_import()
    from tvm import relax  # noqa: F401  (loaded once, for every worker)

    import autotune.measure.candidate  # noqa: F401
    from autotune.measure.drift import fixed_kernel
    from search_spaces import plugins as entry_points
    from search_spaces.registry import all_spaces

    # What does not load was said by the process that measures.
    logging.getLogger(entry_points.__name__).disabled = True
    all_spaces()
    for name in plugins:
        importlib.import_module(name)
    fixed_kernel()  # also loads everything that is loaded with the first build
    gc.collect()
    gc.freeze()  # a collection in a worker does not touch, and so copy, the zygote's pages


def _become_worker(libc: Any, parent: int, descriptors: list[int], memory: int) -> None:
    """In the fork: never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        channel, noise = descriptors
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)  # what a kernel or a space prints reaches nobody
        os.dup2(noise, 2)
        os.close(null)
        os.close(noise)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
        from autotune.measure.candidate import serve

        serve(socket.socket(fileno=channel))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    zygote(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
