"""Inside a worker: a built candidate on a device. The device runs it; everything is judged here."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autotune.artifact.link import link
from autotune.compiler import compile_functions
from autotune.dtypes import numpy_dtype
from autotune.measure import wire
from autotune.measure.data import Array, poison
from autotune.measure.device import CRASHED
from autotune.measure.guard import checksum_of
from autotune.measure.kernel import Kernel, Split, split_packing
from search_spaces.task import Target, TensorType, Workload

_ZONE = 1 << 14
"""Bytes behind each tensor that a kernel must leave alone. TVM cannot place one before it."""

_PATTERN = np.tile(np.array([0xF5, 0xFF], np.uint8), _ZONE // 2)
_ALL_CORES = 1  # TVM's name for the affinity it has anyway is "big"


class SessionLost(Exception):
    """The connection to the device broke, or was not made: the server may be gone."""


class SessionCrashed(Exception):
    """The process that ran the kernel died of ``signal`` (0: it left by itself)."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


class SessionExpired(Exception):
    """The server ended the session because its time was over."""


@dataclass(frozen=True)
class Package:
    """A built candidate as the file that a device loads."""

    path: Path
    split: Split = field(repr=False)


@contextlib.contextmanager
def packaged(
    module: Any, workload: Workload, target: Target, compiler: str | None
) -> Iterator[Package]:
    """Compile a scheduled module for ``target`` and put it in a file, removed at the end.

    ``compiler`` is the command that links it to a shared library ("" for this machine's own); with
    None the device links the objects by its own compiler. Raises ``PackingError``,
    ``ArtifactError`` where linking fails, and TVM's errors.
    """
    split = split_packing(module, workload)
    library = compile_functions(split.module, target)
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        if compiler is None:
            path = Path(folder) / "kernel.tar"
            library.export_library(str(path))
        else:
            path = Path(folder) / "kernel.so"
            library.export_library(str(path), fcompile=link, compiler=compiler)
        yield Package(path, split)


@contextlib.contextmanager
def session(channel: socket.socket, enter: Callable[[str], None]) -> Iterator[Session]:
    """A session of the device that the other side of ``channel`` grants, closed at the end.

    Raises ``SessionLost``, ``SessionCrashed`` or ``SessionExpired`` for what ends it too early;
    what a kernel or TVM raises while the session lives is raised as it is.
    """
    enter("device")
    message, _ = wire.receive(channel)
    opened = Session(message["device"])
    try:
        yield opened
    except Exception as error:
        opened.judge(str(error))
        raise
    finally:
        opened.close()


class Session:
    """One connection to a device, on which one candidate is run."""

    def __init__(self, lease: Mapping[str, Any]) -> None:
        """Connect. ``lease`` has host, port, match, the limit in seconds, and threads.

        Raises ``SessionLost``.
        """
        from tvm import rpc

        try:
            self._rpc = rpc.connect(
                lease["host"], lease["port"], lease["match"], session_timeout=lease["seconds"]
            )
            self.device = self._rpc.cpu(0)
            self._rpc.get_function("runtime.config_threadpool")(_ALL_CORES, lease["threads"])
        except Exception as error:  # sockets and the protocol, in TVM's clothes
            raise SessionLost(_last_line(error)) from error
        self.runs = 0

    def threads(self) -> int:
        """How many threads a kernel gets there."""
        return int(self._rpc.get_function("runtime.NumThreads")())

    def load(self, package: Package) -> Kernel:
        """Upload and load. Raises TVM's errors."""
        self._rpc.upload(str(package.path))
        library = self._rpc.load_module(package.path.name)
        function = library[package.split.main]

        def run(*arguments: Any) -> None:
            self.runs += 1
            function(*arguments)

        return RemoteKernel(library, package.split, run, self)

    def allocate(self, kind: TensorType) -> RemoteBuffer:
        """A tensor on the device."""
        return RemoteBuffer(kind, self)

    def judge(self, text: str) -> None:
        """Raise what an error of TVM's with this text means, if it ended the session."""
        if "RPCSessionTimeoutError" in text:
            raise SessionExpired
        if CRASHED in text:
            digits = text.partition(f"{CRASHED}: ")[2].split(maxsplit=1)
            raise SessionCrashed(int(digits[0]) if digits and digits[0].isdecimal() else 0)
        try:
            self.threads()
        except Exception as error:  # anything but an answer
            raise SessionLost(_last_line(error)) from error

    def close(self) -> None:
        """End the session, so that the device is free. Safe where it is broken."""
        with contextlib.suppress(Exception):
            self._rpc.get_function("CloseRPCConnection")()


@dataclass(frozen=True)
class RemoteKernel(Kernel):
    """A kernel on a device. Its packing function runs there, too."""

    session: Session = field(repr=False)

    def samples(self, arguments: Sequence[Any], repeat: int, *, cold: bool = False) -> list[float]:
        """Seconds of ``repeat`` single executions by the device's clock, one more before them."""
        self.session.runs += 1
        return self._timed(self.session.device, arguments, repeat, cold)


class RemoteBuffer:
    """A tensor on the device with a guard zone behind it; see ``guard.Buffer``.

    What is in it is fetched once after each run of the session's kernel.
    """

    def __init__(self, kind: TensorType, session: Session) -> None:
        import tvm

        self.kind = kind
        self._session = session
        self._bytes = np.concatenate([np.empty(kind.bytes, np.uint8), _PATTERN])
        self._fetched = session.runs
        self._buffer = tvm.runtime.empty((self._bytes.size,), "uint8", session.device)
        self.tensor: Any = self._buffer._create_view(kind.shape, kind.dtype)
        self.poison()

    @property
    def array(self) -> Array:
        """The contents."""
        contents = self._contents()[: self.kind.bytes]
        return contents.view(numpy_dtype(self.kind.dtype)).reshape(self.kind.shape)

    def fill(self, array: Array) -> None:
        """Write ``array``, which is of the same shape and dtype, and the zone behind it."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._bytes = np.concatenate([flat, _PATTERN])
        self._buffer.copyfrom(self._bytes)
        self._fetched = self._session.runs

    def poison(self) -> None:
        """Fill with what no kernel computes, so that an element that is not written is seen."""
        self.fill(poison(self.kind))

    def bits(self) -> bytes:
        """A copy of the contents, to be compared bit by bit."""
        return self._contents()[: self.kind.bytes].tobytes()

    def checksum(self) -> int:
        """A number that changes when any one byte does."""
        return checksum_of(self._contents()[: self.kind.bytes])

    @property
    def intact(self) -> bool:
        """Whether nothing behind the tensor was written."""
        return bool(np.array_equal(self._contents()[self.kind.bytes :], _PATTERN))

    def _contents(self) -> Array:
        if self._fetched != self._session.runs:
            self._fetched = self._session.runs
            self._bytes = self._buffer.numpy()
        return self._bytes


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
