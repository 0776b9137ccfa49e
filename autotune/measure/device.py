"""Offering this machine for measuring: TVM's RPC server, that outlives what it runs.

TVM's own server of 0.27 stops listening for good when a session's process dies of a signal, which
is what a faulty kernel does. Here the client is told which signal it was, and the next one is
served. A session also ends when its client is gone or its time is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CRASHED = "RPCSessionCrashed"
"""How the text of an error begins by which a client is told that a session's process died."""

_LEAVING_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1
_FORK = multiprocessing.get_context("fork")


def serve(
    tracker: tuple[str, int],
    key: str,
    *,
    host: str = "0.0.0.0",
    port: int = 0,
    address: str | None = None,
    threads: int | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve one session after the other, for ever. To be called in a process of its own.

    Registers as ``key`` at ``tracker`` (host, port), which is waited for a minute, and returned to
    when it restarts. Listens on ``host``:``port`` (0: any free port, of which ``ready`` is told);
    clients are sent to ``address`` if the tracker sees this machine under another one than they.
    Kernels run with up to ``threads`` threads. There is no authentication: whoever reaches the
    port can run any code. Raises ``OSError`` where the port cannot be had.
    """
    if threads is not None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
    from tvm.rpc import base, server

    server.logger.setLevel(logging.WARNING)
    server._serving = _serving  # what its loop calls for each session
    with socket.socket(base.get_addr_family((host, port)), socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1)
        number = listening.getsockname()[1]
        if ready is not None:
            ready(number)
        server._listen_loop(listening, number, key, tracker, "", address)


def _serving(
    connection: socket.socket, client: object, options: Mapping[str, Any], libraries: object
) -> None:
    """Serve one session in a process of its own, in a directory that is removed with it."""
    from tvm.rpc import _ffi_api

    folder = tempfile.mkdtemp(prefix="autotune-device-")
    process = _FORK.Process(target=_session, args=(connection, folder))
    process.start()
    try:
        message = _watched(process, connection, options.get("timeout"))
        if message:
            with contextlib.suppress(Exception):  # TVM's errors for a client that is gone
                _ffi_api.ReturnException(connection.fileno(), message)
    finally:
        process.kill()
        process.join()
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)


def _watched(process: Any, connection: socket.socket, limit: float | None) -> str:
    """Wait for the end of a session; returns what its client is to be told, "" for nothing."""
    deadline = None if limit is None else time.monotonic() + limit
    poll = select.poll()
    poll.register(process.sentinel, select.POLLIN)
    poll.register(connection, select.POLLRDHUP)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = [number for number, _ in poll.poll(None if left is None else left * 1000)]
        if process.sentinel in ready:
            process.join()
            code = process.exitcode
            return f"{CRASHED}: {-code}" if code < 0 else f"{CRASHED}: 0" if code else ""
        if ready:  # the client has left: so will the session, if it is not in the middle of a loop
            process.join(_LEAVING_SECONDS)
            return ""
        if deadline is not None and time.monotonic() >= deadline:
            process.kill()
            process.join()
            return f"RPCSessionTimeoutError: the {limit:g} s of the session are over"


def _session(connection: socket.socket, folder: str) -> None:
    """In the child: TVM's loop, with everything it loads in ``folder``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(folder)
    from tvm.rpc import server

    server._serve_loop(connection, "", _Folder(Path(folder)))


class _Folder:
    """What TVM's server asks for paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.libs: Sequence[object] = ()

    def relpath(self, name: str) -> str:
        """The path of an uploaded file; never outside of the directory."""
        return str(self.path / Path(name).name)
