"""Running a job: one pair of model and target after the other, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from autotune.jobs.file import read_job
from autotune.jobs.job import Job, Pair
from autotune.jobs.summary import Entry, JobSummary, read_summary, sole_run, write_summary
from autotune.runtime import MANIFEST
from autotune.steps import Status, tell

if TYPE_CHECKING:
    from autotune.search.progress import Progress

BUDGET = ("trials", "time", "until")
LEAST_SECONDS = 1.0
"""Of search for what had used up its time when it was killed: to hold finals, and compile."""

_EVERY = 1.0
"""Seconds between two notes of the progress of one search."""

_GRACE = 0.7
"""Seconds that a search has to end by itself when the job is interrupted."""


def run_job(
    path: str | Path,
    progress: Callable[[Progress], None] | None = None,
    status: Status | None = None,
) -> JobSummary:
    """Tune every model of the job file ``path`` for every target, and compile the best.

    Called again, also after a kill, it continues: what was done as it is asked for now is not done
    again, and the rest goes on with what is left of its budget. A model that cannot be tuned is an
    entry that says why, and the others go on. The summary is in the output directory at any time.
    ``progress`` and ``status`` are called as those of ``autotune.tune`` are.

    Raises a ``UserError``: all faults of the file in one (``autotune.jobs.file.JobFileError``), or
    that the job runs already. An interruption is no error: ``interrupted`` is then true.
    """
    job = read_job(path)
    with sole_run(job.output):
        book = _Book(job)
        try:
            for number, (pair, entry) in enumerate(book.pairs, 1):
                line = f"{pair.name} ({number} of {len(job.pairs)})"
                if done_before(pair, entry):
                    tell(status, f"{line}: it was done before")
                    continue
                tell(status, line)
                with book.at_work(entry):
                    _tune(job, pair, entry, book, progress, status)
                if entry.state == "failed":
                    tell(status, f"{pair.name} failed: {entry.message}")
        except KeyboardInterrupt:
            book.summary.interrupted = True
            book.write()
        return book.summary


def done_before(pair: Pair, entry: Entry) -> bool:
    """Whether ``entry`` is the result of exactly this, and still there."""
    return entry.ended and (pair.artifact / MANIFEST).is_file()


def entries_of(job: Job) -> list[Entry]:
    """What is known of each pair of ``job`` from earlier runs."""
    before = read_summary(job.output)
    known = {(entry.model, entry.target): entry for entry in before.entries} if before else {}
    return [_continued(pair, known.get((pair.model, pair.where))) for pair in job.pairs]


def _continued(pair: Pair, before: Entry | None) -> Entry:
    asked = json.loads(json.dumps(pair.asked()))
    entry = Entry(model=pair.model, target=pair.where, asked=asked, artifact=str(pair.artifact))
    if before is None or _but_budget(before.asked) != _but_budget(asked):
        return entry
    if before.asked == asked:
        return before
    # The budget is another one now: what was spent of the old one counts.
    return entry.model_copy(update={"spent": before.spent, "trials": before.trials})


def _but_budget(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key not in BUDGET}


class _Book:
    """The summary of a run as it is kept."""

    def __init__(self, job: Job) -> None:
        self._output = job.output
        self._written = 0.0
        entries = entries_of(job)
        for entry in entries:
            if entry.state == "at work":
                entry.state = "interrupted"  # by a kill
        self.pairs = list(zip(job.pairs, entries, strict=True))
        self.summary = JobSummary(
            job=str(job.path),
            database=str(job.database),
            output=str(job.output),
            entries=entries,
        )
        self.write()

    def write(self) -> None:
        write_summary(self._output, self.summary)
        self._written = time.monotonic()

    def note(self) -> None:
        """Write it unless that was done just now."""
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    @contextmanager
    def at_work(self, entry: Entry) -> Iterator[None]:
        entry.state, entry.message = "at work", ""
        self.write()
        try:
            yield
        except BaseException:
            entry.state = "interrupted"
            raise
        finally:
            self.write()


def _tune(
    job: Job,
    pair: Pair,
    entry: Entry,
    book: _Book,
    progress: Callable[[Progress], None] | None,
    status: Status | None,
) -> None:
    """Tune one pair in a process, and put into ``entry`` what becomes of it."""
    before = entry.spent
    failed = "its process ended without a result"
    with _Child(_order(job, pair, before)) as child:
        for kind, value in child.messages():
            if kind == "status":
                tell(status, value)
            elif kind == "progress":
                _note_progress(entry, value, before)
                book.note()
                if progress is not None:
                    progress(_progress(value))
            elif kind == "result":
                _note_result(entry, value, before, pair)
                failed = ""
            elif kind == "failed":
                failed = value
        code = child.wait()
    if code < 0:
        failed = f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
    elif code:
        failed = f"its process ended with exit code {code}: what it printed says why"
    if failed:
        entry.state, entry.message = "failed", failed


def _order(job: Job, pair: Pair, spent: float) -> dict[str, Any]:
    options = pair.options
    seconds = options.time and max(LEAST_SECONDS, options.time - spent)
    return {
        "parent": os.getpid(),
        "tune": {
            "model": str(pair.path),
            "input_shapes": dict(pair.shapes),
            "target": asdict(pair.target),
            "device": pair.device and asdict(pair.device),
            "cores": pair.cores,
            "ray": pair.ray,
            "trials": options.trials,
            "seconds": seconds,
            "until": options.until,
            "sampler": options.sampler,
            "seed": options.seed,
            "graph": options.graph,
            "accuracy_budget": options.accuracy_budget,
            "calibration": pair.calibration and str(pair.calibration),
            "evaluate": options.eval,
            "precisions": options.precisions,
            "cache": options.cache,
            "transfer": options.transfer,
            "database": str(job.database),
            "output": str(pair.artifact),
        },
    }


class _Child:
    """A process that carries out an order. A context manager: it does not outlive the block."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "autotune.jobs.child"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, who pass it on
        )
        self._order = order
        self._listens = False

    def messages(self) -> Iterator[tuple[str, Any]]:
        """What it tells, until it ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            json.dump(self._order, stdin)
        for line in self._process.stdout:
            self._listens = True
            ((kind, value),) = json.loads(line).items()
            yield kind, value

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that ended it."""
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listens and kind is KeyboardInterrupt:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # compiled code does not listen
                self._process.wait(_GRACE)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _progress(value: Mapping[str, Any]) -> Progress:
    from autotune.search.progress import Progress

    return Progress(**value)


def _note_progress(entry: Entry, value: Mapping[str, Any], before: float) -> None:
    entry.spent = before + value["elapsed"]
    entry.trials = value["done"]
    entry.tasks, entry.measured = value["tasks"], value["tasks_measured"]
    entry.seconds, entry.default_seconds = value["latency"], value["baseline"]


def _note_result(entry: Entry, value: Mapping[str, Any], before: float, pair: Pair) -> None:
    stopped = value["stopped"]
    entry.spent, entry.trials = before + value["elapsed"], value["trials"]
    entry.tasks, entry.measured = value["tasks"], value["measured"]
    entry.seconds, entry.default_seconds = value["seconds"], value["default_seconds"]
    entry.message = value["message"]
    if stopped == "interrupted":  # by somebody who signalled it, and not the job
        entry.state = "interrupted"
    elif stopped == "all_failed":
        entry.state = "failed"
    elif pair.options.until is not None and stopped != "reached":
        entry.state = "not reached"
        entry.message = f"{pair.options.until} was not reached: give it a larger budget"
    else:
        entry.state = "done"
