"""Between a ``Record`` and a row of the table: what may be stored, and how it is packed."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from tuning_db.errors import InvalidRow
from tuning_db.records import Record

OUTCOMES = ("measured", "build_failed", "crashed", "timed_out", "wrong_result", "invalid")
"""The closed set of what can become of a candidate."""

TRACE_LIMIT = 64 << 20
"""A stored trace larger than this (bytes of text) is not unpacked: it is not one of ours."""

SELECT = """SELECT r.workload, r.target, r.space, r.space_version, r.parameters, r.candidate,
 r.outcome, r.seconds, r.samples, r.error, r.tolerance, r.detail, t.text, r.versions, r.run,
 r.time, r.final, r.id, r.round FROM records AS r LEFT JOIN traces AS t ON t.id = r.trace"""


def now() -> str:
    """The time as stored: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def checked(record: Record) -> Record:
    """``record`` as it will be stored, or ``InvalidRow`` with the field at fault.

    SQLite has no NaN: an error that is none becomes infinite, which is what it means.
    """
    if record.outcome not in OUTCOMES:
        raise InvalidRow(f"outcome {record.outcome!r} is none of {', '.join(OUTCOMES)}")
    if record.outcome == "measured":
        if record.seconds is None or not (0 < record.seconds < math.inf):
            raise InvalidRow(f"a measured record needs positive seconds, not {record.seconds}")
    elif record.seconds is not None or record.samples:
        raise InvalidRow(f"a record of outcome {record.outcome} has no seconds and no samples")
    if not all(0 <= sample < math.inf for sample in record.samples):
        raise InvalidRow("samples must be finite seconds")
    for name in ("workload", "target", "space", "candidate", "run"):
        if not getattr(record, name):
            raise InvalidRow(f"a record needs its {name}")
    for name in ("parameters", "detail", "versions"):
        if not is_object(getattr(record, name)):
            raise InvalidRow(f"{name} is not the JSON text of an object")
    if record.error is not None and math.isnan(record.error):
        record = replace(record, error=math.inf)
    return record if record.time else replace(record, time=now())


def is_object(text: str) -> bool:
    """Whether ``text`` is a JSON object that SQLite reads as well (no NaN, no Infinity)."""
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def pack_samples(samples: tuple[float, ...]) -> bytes | None:
    """Little-endian float64, one after the other; NULL where there are none."""
    return struct.pack(f"<{len(samples)}d", *samples) if samples else None


def unpack_samples(packed: bytes | None) -> tuple[float, ...]:
    """The inverse of ``pack_samples``; a torn tail is left out."""
    if packed is None:
        return ()
    return struct.unpack_from(f"<{len(packed) // 8}d", packed)


def pack_trace(text: str) -> tuple[bytes, bytes]:
    """Digest and zlib-compressed text of a trace."""
    raw = text.encode()
    return hashlib.sha256(raw).digest()[:16], zlib.compress(raw, 6)


def unpack_trace(packed: bytes | None) -> str:
    """The inverse of ``pack_trace``; raises ``InvalidRow`` for what was not made by it."""
    if packed is None:
        return ""
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(packed, TRACE_LIMIT)
        if not unpacker.eof:
            raise InvalidRow("a stored trace is torn, or too large to be one")
        return raw.decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise InvalidRow(f"a stored trace cannot be unpacked ({error})") from error


_FIELDS = [field.name for field in fields(Record)]


def to_record(row: tuple[Any, ...]) -> Record:
    """A row of ``SELECT`` as a ``Record``; the round after the last field is left out."""
    values = dict(zip(_FIELDS, row, strict=False))
    values["samples"] = unpack_samples(values["samples"])
    values["trace"] = unpack_trace(values["trace"])
    values["final"] = bool(values["final"])
    return Record(**values)
