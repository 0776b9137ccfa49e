"""An RPC tracker and device servers on this machine, as processes that a test may kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from autotune.measure.tracker import Tracker

TRACKER = """
import sys
from tvm.rpc.tracker import PopenTrackerServerState
port = int(sys.argv[1])
PopenTrackerServerState("127.0.0.1", port, port + 1, silent=True).thread.join()
"""

SERVER = """
import sys
from tvm.rpc.server import PopenRPCServerState
port = int(sys.argv[3])
PopenRPCServerState(
    "127.0.0.1", port, port + 1, tracker_addr=("127.0.0.1", int(sys.argv[1])), key=sys.argv[2]
).thread.join()
"""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Devices:
    """A tracker, and servers that register with it. A context manager: it ends them all."""

    def __init__(self) -> None:
        self.tracker = Tracker("127.0.0.1", free_port())
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start([sys.executable, "-c", TRACKER, str(self.tracker.port)])

    def __enter__(self) -> Devices:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            kill(process)

    def serve(self, key: str, threads: int = 2) -> subprocess.Popen[bytes]:
        """Start a server of ours, which is ready some seconds later."""
        command = "from autotune.cli.main import main; main()"
        return self._start(
            [
                *(sys.executable, "-c", command, "device", "--tracker", str(self.tracker)),
                *("--key", key, "--host", "127.0.0.1", "--threads", str(threads)),
            ]
        )

    def serve_by_tvm(self, key: str) -> subprocess.Popen[bytes]:
        """Start TVM's own server, with two threads."""
        return self._start(
            [sys.executable, "-c", SERVER, str(self.tracker.port), key, str(free_port())]
        )

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TVM_NUM_THREADS": "2",
            },
            start_new_session=True,
        )
        self.processes.append(process)
        return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started, and wait for its end."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
