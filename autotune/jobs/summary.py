"""How far a job has come: a JSON file beside its artifacts, whole at any moment.

What was measured is in the database, and nothing of it depends on this file: where it is lost a job
measures nothing twice, but takes the whole of its time again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from autotune.errors import InputError
from autotune.files import replacing

SUMMARY = "summary.json"
_LOCK = ".job.lock"
_PATIENCE = 1.0
"""Seconds that a job waits for its lock: one that only looks holds it for a moment."""

State = Literal["waiting", "at work", "interrupted", "done", "not reached", "failed"]


class Entry(BaseModel):
    """One model on one target. ``asked`` is what its result depends on.

    ``spent`` are seconds of search by all runs of the job, ``trials`` the measured candidates in
    the database. ``seconds`` and ``default_seconds`` are the sum over those of the ``tasks`` that
    were ``measured``, with the winners and with the defaults. ``message`` is one sentence: how the
    search ended, or why it failed.
    """

    model: str
    target: str
    state: State = "waiting"
    asked: dict[str, Any] = {}
    spent: float = 0.0
    trials: int = 0
    tasks: int = 0
    measured: int = 0
    seconds: float | None = None
    default_seconds: float | None = None
    message: str = ""
    artifact: str = ""

    @property
    def ended(self) -> bool:
        """Whether its budget was spent, for better or worse."""
        return self.state in ("done", "not reached")


class JobSummary(BaseModel):
    """A job as it stands; ``interrupted`` says that somebody stopped it."""

    job: str
    database: str
    output: str
    interrupted: bool = False
    entries: list[Entry]

    @property
    def succeeded(self) -> bool:
        """Whether every model was tuned for every target, and as fast as was asked for."""
        return all(entry.state == "done" for entry in self.entries)


def read_summary(output: Path) -> JobSummary | None:
    """What the last run of a job left in its output directory; None where there is nothing."""
    try:
        return JobSummary.model_validate_json((output / SUMMARY).read_bytes())
    except (OSError, ValidationError):
        return None  # none yet, or it is of something else


def write_summary(output: Path, summary: JobSummary) -> None:
    """Put ``summary`` in place of the last one, durably. Raises ``InputError``."""
    with replacing(output / SUMMARY) as file:
        file.write(summary.model_dump_json(indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def sole_run(output: Path) -> Iterator[None]:
    """Let nobody else run the job of ``output`` inside. Raises ``InputError``."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from error
    try:
        end = time.monotonic() + _PATIENCE
        while not _locked(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise InputError(
                    f"process {_process(descriptor)} runs this job already: `autotune job status` "
                    "shows how far it is"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)  # and so gives up the lock, as the end of the process would


def running(output: Path) -> int | None:
    """The process that runs the job of ``output`` now; None where none does."""
    try:
        descriptor = os.open(output / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _locked(descriptor, fcntl.LOCK_SH) else _process(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process(descriptor: int) -> int:
    return int(os.pread(descriptor, 20, 0) or 0)
