"""Asking TVM's RPC tracker for a device: its protocol, with limits that it does not have itself."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from autotune.errors import DeviceError, InputError

_MAGIC = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6
_PRIORITY = 1
_INTEGER = struct.Struct("<i")
_LARGEST = 1 << 20
_ANSWER_SECONDS = 5.0
_LEAST_SECONDS = 1.0
PAUSE_SECONDS = 0.25
"""Between two attempts to reach what does not answer."""


@dataclass(frozen=True)
class Device:
    """A device to measure on: the ``key`` it registered as at the ``tracker`` (HOST:PORT).

    ``wait_seconds`` is how long it is waited for when it is gone; ``compiler`` the command that
    links for it, see ``autotune.measure.rpc.RPCRunner``.
    """

    tracker: str
    key: str
    wait_seconds: float = 60.0
    compiler: str | None = None


@dataclass(frozen=True)
class Lease:
    """One session of a device that the tracker granted: where, and the word that opens it."""

    host: str
    port: int
    match: str


@dataclass(frozen=True)
class Tracker:
    """Where a tracker listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Tracker:
        """``HOST:PORT``, or ``[HOST]:PORT`` for IPv6. Raises ``InputError``."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InputError(f"{text!r} is no tracker's address: write it as HOST:PORT")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def lease(self, key: str, deadline: float) -> Lease:
        """Wait for a device of ``key`` until ``deadline`` (``time.monotonic()`` seconds).

        A tracker that does not answer is asked again. Raises ``DeviceError``, whose sentence says
        whether the tracker is missing, the device, or only a free one.
        """
        reason = "it did not answer"
        deadline = max(deadline, time.monotonic() + _LEAST_SECONDS)
        while (left := deadline - time.monotonic()) > 0:
            try:
                with self._connected(min(left, _ANSWER_SECONDS)) as sock:
                    reason = ""
                    _send(sock, [_REQUEST, key, "", _PRIORITY])
                    answer = _receive(sock, deadline)
                    if answer[0] == _SUCCESS:
                        host, port, match = answer[1]
                        return Lease(str(host), int(port), str(match))
                    reason = "it refused"
            except (OSError, ValueError, LookupError, TypeError) as error:
                # Until the deadline a request waits in the tracker's queue: that is no failure.
                if reason or time.monotonic() < deadline:
                    reason = str(error) or type(error).__name__
            time.sleep(max(0.0, min(PAUSE_SECONDS, deadline - time.monotonic())))
        if reason:
            raise DeviceError(
                f"no RPC tracker answers at {self} ({reason}): start it there with "
                f"python -m tvm.exec.rpc_tracker --port {self.port}, or correct --rpc"
            )
        if self._registered(key):
            raise DeviceError(
                f"every device {key!r} of the tracker {self} is in use: wait until one is free, "
                "or allow more time with --rpc-wait"
            )
        raise DeviceError(
            f"no device {key!r} is registered at the tracker {self}: start its server on the "
            f"device with autotune device --tracker {self} --key {key}"
        )

    def _registered(self, key: str) -> bool:
        """Whether a server of ``key`` is connected to the tracker, busy or not."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            with self._connected(_ANSWER_SECONDS) as sock:
                _send(sock, [_SUMMARY])
                servers = _receive(sock, time.monotonic() + _ANSWER_SECONDS)[1]["server_info"]
            return any(entry["key"] == f"server:{key}" for entry in servers)
        return False

    def _connected(self, seconds: float) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timeout=seconds)
        try:
            sock.sendall(_INTEGER.pack(_MAGIC))
            (magic,) = _INTEGER.unpack(_exactly(sock, _INTEGER.size, time.monotonic() + seconds))
            if magic != _MAGIC:
                raise ValueError("what listens there is no RPC tracker")
        except BaseException:
            sock.close()
            raise
        return sock


def _send(sock: socket.socket, message: Any) -> None:
    body = json.dumps(message).encode()
    sock.sendall(_INTEGER.pack(len(body)) + body)


def _receive(sock: socket.socket, deadline: float) -> Any:
    (length,) = _INTEGER.unpack(_exactly(sock, _INTEGER.size, deadline))
    if not 0 < length <= _LARGEST:
        raise ValueError(f"{length} bytes announced")
    return json.loads(_exactly(sock, length, deadline))


def _exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(left)
        part = sock.recv(count - len(data))
        if not part:
            raise OSError("the connection was closed")
        data += part
    return data
