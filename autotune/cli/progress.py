"""Progress on stderr: live lines on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from autotune.counts import counted

if TYPE_CHECKING:
    from autotune.search.progress import Progress

EVERY = 10.0
"""Seconds between two plain lines at least."""


class Reporter(Protocol):
    """What a command tells while it works."""

    def status(self, line: str) -> None:
        """A long step begins."""

    def progress(self, state: Progress) -> None:
        """A candidate was measured."""


def describe(state: Progress) -> str:
    """One line: trials, their rate, the model's latency and the default's, failures, time left.

    With "~" where tasks that were not measured yet count by an estimate.
    """
    done = counted(state.done, "trial")
    parts = [done if state.total is None else f"{state.done} of {counted(state.total, 'trial')}"]
    if state.rate > 0 and state.stage == "search":
        parts.append(f"{state.rate:.1f} a second")
    if state.latency > 0:
        best, base = state.latency * 1e3, state.baseline * 1e3
        about = "~" if state.estimated else ""
        parts.append(
            f"{about}{best:.3g} ms, {base / best:.2f}x as fast as the default "
            f"({about}{base:.3g} ms)"
        )
    if state.timed is not None:
        parts.append(f"{state.timed * 1e3:.3g} ms when it was last timed whole")
    if state.estimated:
        parts.append(f"{state.tasks_measured} of {state.tasks} tasks begun")
    failed = sum(state.failures.values())
    if failed:
        kinds = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in state.failures.items())
        parts.append(f"{failed} failed ({kinds})")
    if state.stage == "finals":
        parts.append("comparing the winners")
    elif state.left is not None:
        parts.append(f"{clock(state.left)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as "45s", "3m20s" or "1h05m"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class PlainReporter:
    """Lines for a log file."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._stage = ""

    def status(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def progress(self, state: Progress) -> None:
        now = time.monotonic()
        final = state.total is not None and state.done >= state.total
        if now - self._last >= EVERY or state.stage != self._stage or final:
            self._last, self._stage = now, state.stage
            print(describe(state), file=sys.stderr, flush=True)


class QuietReporter:
    """Says nothing."""

    def status(self, line: str) -> None:
        """Nothing."""

    def progress(self, state: Progress) -> None:
        """Nothing."""


@contextmanager
def reporter(quiet: bool = False) -> Iterator[Reporter]:
    """A reporter for the length of a block, by what stderr is; ``quiet`` ones say nothing."""
    if quiet:
        yield QuietReporter()
        return
    if not sys.stderr.isatty():
        yield PlainReporter()
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status("") as live:

        class LiveReporter:
            def status(self, line: str) -> None:
                console.print(line, highlight=False, markup=False)
                live.update(escape(line))

            def progress(self, state: Progress) -> None:
                live.update(f"{escape(describe(state))}\n  at {escape(state.task)}")

        yield LiveReporter()
