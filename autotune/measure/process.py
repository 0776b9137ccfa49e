"""The tuner's side of the child processes: start, wait with a limit, kill, and learn the cause.

Every limit is enforced here, by the parent: a kernel or a space that holds Python's lock for ever
cannot stop its own clock.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from autotune.measure import wire

_PATIENCE = 30.0
"""Seconds that the other side may take to read a message of ours; more means it is dead."""


class WorkerDied(Exception):
    """The process is gone, or writes nonsense."""


class LimitPassed(Exception):
    """No answer before the deadline."""


class ZygoteFailed(Exception):
    """The zygote could not start (with the reason), or has died."""


class Zygote:
    """The process that workers are forked from. Starting takes seconds and does not block."""

    def __init__(self, threads: int, plugins: Sequence[str]) -> None:
        """Start it; each of its workers runs kernels with ``threads`` threads."""
        ours, theirs = socket.socketpair()
        count = {n: "1" for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        # A worker's idle threads would spin for a tenth of a second, while the next one measures.
        count["TVM_THREAD_POOL_SPIN_COUNT"] = "10000"
        count["TVM_BIND_THREADS"] = "0"  # the workers choose the cores
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "autotune.measure.worker", str(theirs.fileno()), *plugins],
            env={**os.environ, **count, "TVM_NUM_THREADS": str(threads), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._control = ours
        self._ready = False

    @property
    def pid(self) -> int:
        """Its process id, which is also the session of everything it forks."""
        return self._process.pid

    def wait_ready(self, seconds: float) -> None:
        """Wait until it can fork. Raises ``ZygoteFailed``."""
        if self._ready:
            return
        self._control.settimeout(seconds)
        try:
            message, _ = wire.receive(self._control)
        except (OSError, EOFError) as error:
            raise ZygoteFailed("it did not start") from error
        if "failed" in message:
            raise ZygoteFailed(message["failed"])
        self._control.settimeout(_PATIENCE)
        self._ready = True

    def ask(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> wire.Message:
        """Send one request and wait for its answer. Raises ``ZygoteFailed``."""
        try:
            wire.send(self._control, message, descriptors)
            return wire.receive(self._control)[0]
        except (OSError, EOFError) as error:
            raise ZygoteFailed("it has died") from error
        except BaseException:
            self._control.close()  # interrupted: what comes now would answer the next request
            raise

    def close(self) -> None:
        """End it, and by that every worker that still lives."""
        self._control.close()
        if not self._ready:
            self._process.kill()  # it is busy starting, and has no worker yet
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class WorkerProcess:
    """One worker, as seen by the tuner."""

    def __init__(self, zygote: Zygote, memory: int) -> None:
        """Fork it from ``zygote``; it may use ``memory`` bytes. Raises ``ZygoteFailed``."""
        self.zygote = zygote
        self._sock, theirs = socket.socketpair()
        self._noise, noise = os.pipe()
        os.set_blocking(self._noise, False)
        os.set_blocking(noise, False)  # a flood on stderr is dropped, and blocks nobody
        try:
            answer = zygote.ask({"do": "fork", "memory": memory}, [theirs.fileno(), noise])
        except BaseException:
            self._sock.close()
            os.close(self._noise)
            raise
        finally:
            theirs.close()
            os.close(noise)
        self.pid = int(answer["pid"])
        self._sock.settimeout(_PATIENCE)
        self._buffer = bytearray()
        self._pidfd = os.pidfd_open(self.pid)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._poll.register(self._pidfd, select.POLLIN)
        self.candidates = 0
        self.task = ""

    def send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Write one request. Raises ``WorkerDied``."""
        try:
            wire.send(self._sock, message, descriptors)
        except OSError as error:
            raise WorkerDied(str(error)) from error

    def receive(self, deadline: float) -> wire.Message:
        """Wait, blocked, for one message until ``deadline`` (``time.monotonic()`` seconds).

        Raises ``LimitPassed`` or ``WorkerDied``; the caller then calls ``end``.
        """
        while (message := self.pending()) is None:
            if (left := deadline - time.monotonic()) <= 0:
                raise LimitPassed
            # A poll for longer than C's int of milliseconds is refused.
            self._poll.poll(min(left, 1e6) * 1000)
        return message

    def pending(self) -> wire.Message | None:
        """A message that has come; None while there is none. Raises ``WorkerDied``."""
        while (body := self._next()) is None:
            ready = dict(self._poll.poll(0))
            if not ready:
                return None
            if self._sock.fileno() not in ready:
                raise WorkerDied("it ended")
            try:
                part = self._sock.recv(1 << 20)
            except OSError as error:
                raise WorkerDied(str(error)) from error
            if not part:
                raise WorkerDied("it closed its channel")
            self._buffer += part
        try:
            return wire.decode(body)
        except wire.BadMessage as error:
            raise WorkerDied(str(error)) from error

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return not any(fd == self._pidfd for fd, _ in self._poll.poll(0))

    def watch(self, poll: select.poll) -> None:
        """Let ``poll`` wake when ``pending`` has something to tell."""
        poll.register(self._sock, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)

    def _next(self) -> bytes | None:
        if len(self._buffer) < wire.HEADER.size:
            return None
        (length,) = wire.HEADER.unpack_from(self._buffer)
        if length > wire.LARGEST:
            raise WorkerDied(f"{length} bytes announced")
        end = wire.HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[wire.HEADER.size : end])
        del self._buffer[:end]
        return body

    def noise(self) -> str:
        """The last line that it wrote to stderr since it was asked before, stack frames apart."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._noise, 1 << 16):
                data = (data + part)[-(1 << 16) :]
        lines = [line.strip(" !\r\t") for line in data.decode(errors="replace").split("\n")]
        telling = [line for line in lines if line and not line.startswith(("File ", "Stack "))]
        return telling[-1][:300] if telling else ""

    def end(self) -> tuple[int, str]:
        """Kill it with everything it started, and return how it had ended and its last words.

        The first is the signal that ended it (that of the crash if it crashed before, 9 if it was
        killed here), or 0 if it left by itself. Raises ``ZygoteFailed``.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            status = int(self.zygote.ask({"do": "reap", "pid": self.pid})["status"])
        finally:
            words = self.noise()
            self._sock.close()
            os.close(self._noise)
            os.close(self._pidfd)
        return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), words
