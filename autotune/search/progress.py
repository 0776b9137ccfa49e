"""What is told while tuning, and what is told at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autotune.search.drift import Drift
from autotune.shares import shares
from search_spaces.task import Candidate, Task

Stage = Literal["search", "finals"]

Stopped = Literal["budget", "time", "converged", "reached", "interrupted", "all_failed"]
"""Why a search ended: its trials or its time were used up, nothing more was to be gained, the model
is as fast as was asked for, the user stopped it, or the first candidates of everything failed."""


@dataclass(frozen=True)
class Progress:
    """The state after each measurement.

    ``done`` counts measured candidates of all runs so far against ``total`` (None where only time
    bounds the search); ``rate`` are candidates per second of this run; ``elapsed`` and ``left`` are
    seconds, ``left`` None while it cannot be told. ``latency`` is the sum of calls × best seconds
    over all tasks, ``baseline`` the same with each task's default; tasks that were not measured yet
    count by an estimate, and both are 0 where there is none. ``failures`` are candidates by kind of
    outcome, of this run and earlier ones. ``timed`` are seconds of the whole model, where it was
    built and timed meanwhile.
    """

    stage: Stage
    task: str
    done: int
    total: int | None
    elapsed: float
    left: float | None
    rate: float
    latency: float
    baseline: float
    tasks_measured: int
    tasks: int
    failures: Mapping[str, int] = field(default_factory=dict)
    timed: float | None = None

    @property
    def estimated(self) -> bool:
        """Whether ``latency`` holds estimates."""
        return self.tasks_measured < self.tasks


@dataclass(frozen=True)
class TaskResult:
    """What the search found for one task.

    ``winner`` is None where nothing was measured right, and then an untuned build is all there is.
    ``seconds`` and ``default_seconds`` are of one call, measured side by side where there were
    finals (``final``); ``tuned`` says that the winner is another candidate than the default.
    """

    task: Task = field(repr=False)
    winner: Candidate | None
    seconds: float | None
    default_seconds: float | None
    trials: int
    failures: Mapping[str, int]
    tuned: bool
    final: bool
    reason: str
    """Why no more trials went to it: "budget", "converged", "exhausted" or "set aside"."""


@dataclass(frozen=True)
class SearchSummary:
    """How a search ended. ``run`` is the id of its run in the database.

    ``done`` are measured candidates of all runs, ``new`` those of this one. ``latency`` and
    ``baseline`` are the sums of calls × seconds over the tasks that were measured, of the winners
    and of the defaults. ``message`` is one sentence for people; ``drift`` says how disturbed the
    machine was.
    """

    run: str
    stopped: Stopped
    message: str
    tasks: tuple[TaskResult, ...] = field(repr=False)
    done: int
    new: int
    elapsed: float
    latency: float
    baseline: float
    failures: Mapping[str, int]
    drift: Drift = Drift(0, 0, 1.0)

    @property
    def shares(self) -> dict[str, float]:
        """By search space, the share of ``latency`` that its winners take; the largest first."""
        return shares(
            (r.winner.space, r.task.calls * r.seconds) for r in self.tasks if r.winner and r.seconds
        )
