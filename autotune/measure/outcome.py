"""What can become of a candidate: a closed set. A failure is a value, never an exception."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Measured:
    """It ran and its output was right. ``samples`` are seconds of single executions."""

    kind: ClassVar[str] = "measured"
    seconds: float
    samples: tuple[float, ...] = field(repr=False)
    error: float
    tolerance: float


@dataclass(frozen=True)
class BuildFailed:
    """Applying the schedule or compiling it was refused."""

    kind: ClassVar[str] = "build_failed"
    stage: str
    message: str


@dataclass(frozen=True)
class Crashed:
    """The worker died. ``signal`` is its number, 0 if it left by itself."""

    kind: ClassVar[str] = "crashed"
    stage: str
    signal: int
    message: str


@dataclass(frozen=True)
class TimedOut:
    """A stage ("build", "run") took longer than ``limit`` seconds."""

    kind: ClassVar[str] = "timed_out"
    stage: str
    limit: float


@dataclass(frozen=True)
class WrongResult:
    """Its output is not the reference's: largest scaled error against what is tolerated."""

    kind: ClassVar[str] = "wrong_result"
    error: float
    tolerance: float
    message: str


@dataclass(frozen=True)
class Invalid:
    """The parameters make no schedule (``search_spaces.base.InvalidParameters``)."""

    kind: ClassVar[str] = "invalid"
    message: str


Outcome = Measured | BuildFailed | Crashed | TimedOut | WrongResult | Invalid
KINDS: dict[str, type] = {
    c.kind: c for c in (Measured, BuildFailed, Crashed, TimedOut, WrongResult, Invalid)
}
