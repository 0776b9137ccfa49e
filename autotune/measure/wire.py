"""Messages between the tuner and its workers: length-prefixed JSON over a Unix socket.

Nothing is unpickled, so whatever a broken worker writes can at worst be refused.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autotune.measure.outcome import KINDS, Outcome
from search_spaces.task import Access, Axis, Block, Candidate, Target, Task, TensorType, Workload

Message = dict[str, Any]
HEADER = struct.Struct("<I")
LARGEST = 1 << 30
"""Bytes of the largest message: a task carries its function as text, constants included."""


class BadMessage(ValueError):
    """The other side wrote something that is no message of ours."""


def encode(message: Mapping[str, Any]) -> bytes:
    """The bytes of one message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """The message in ``body`` (without its header). Raises ``BadMessage``."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise BadMessage(f"no JSON: {body[:40]!r}") from error
    if not isinstance(message, dict):
        raise BadMessage(f"no object: {body[:40]!r}")
    return message


def send(sock: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Write one message, with open file descriptors beside it. Raises ``OSError``."""
    data = encode(message)
    sent = socket.send_fds(sock, [data], list(descriptors)) if descriptors else 0
    sock.sendall(data[sent:])


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """Wait for one message. Raises ``EOFError`` where the other side is gone, or ``BadMessage``."""
    head, descriptors, _, _ = socket.recv_fds(sock, HEADER.size, 4)
    head += _exactly(sock, HEADER.size - len(head)) if head else b""
    if not head:
        raise EOFError
    (length,) = HEADER.unpack(head)
    if length > LARGEST:
        raise BadMessage(f"{length} bytes announced")
    return decode(_exactly(sock, length)), descriptors


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(1 << 20, count - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def task_message(task: Task) -> Message:
    """A task as JSON-able values."""
    return asdict(task)


def task_from(message: Mapping[str, Any]) -> Task:
    """The task that ``task_message`` described."""
    workload = dict(message["workload"])
    workload["arguments"] = tuple(
        TensorType(tuple(t["shape"]), t["dtype"]) for t in workload["arguments"]
    )
    workload["constants"] = tuple(workload["constants"])
    workload["blocks"] = tuple(_block(block) for block in workload["blocks"])
    return Task(Workload(**workload), message["calls"], message["flops"], message["bytes"])


def _block(message: Mapping[str, Any]) -> Block:
    return Block(
        message["name"],
        tuple(Axis(**axis) for axis in message["axes"]),
        tuple(_access(access) for access in message["reads"]),
        tuple(_access(access) for access in message["writes"]),
        tuple((name, count) for name, count in message["ops"]),
    )


def _access(message: Mapping[str, Any]) -> Access:
    dims = tuple(tuple(dim) for dim in message["dims"])
    return Access(message["buffer"], dims, message["plain"])


def target_from(message: Mapping[str, Any]) -> Target:
    """The target whose ``dataclasses.asdict`` this is."""
    return Target(**{**message, "features": tuple(message["features"])})


def candidate_message(candidate: Candidate) -> Message:
    """A candidate as JSON-able values."""
    return {
        "space": candidate.space,
        "version": candidate.version,
        "parameters": dict(candidate.parameters),
    }


def candidate_from(message: Mapping[str, Any]) -> Candidate:
    """The candidate that ``candidate_message`` described."""
    return Candidate(message["space"], message["version"], message["parameters"])


def outcome_message(outcome: Outcome) -> Message:
    """An outcome as JSON-able values, with its kind."""
    return {"kind": outcome.kind, **asdict(outcome)}


def outcome_from(message: Mapping[str, Any]) -> Outcome:
    """The outcome that ``outcome_message`` described. Raises ``BadMessage``."""
    fields = dict(message)
    try:
        if "samples" in fields:
            fields["samples"] = tuple(float(sample) for sample in fields["samples"])
        outcome: Outcome = KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"no outcome: {message!r:.80}") from error
    return outcome
