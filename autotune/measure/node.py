"""What runs on each host of a Ray cluster: an actor that measures as a host does by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autotune.errors import UserError
from autotune.measure.base import Limits, Measurement, TaskNotMeasurable
from autotune.measure.local import LocalRunner
from autotune.measure.timing import TimingPlan
from autotune.target import native
from autotune.versions import installed
from search_spaces.task import Candidate, Target, Task

PACKAGES = {"autotune": "autotune", "tvm": "apache-tvm"}

Answer = tuple[str, Any]
"""("found", a measurement), ("unmeasurable", why), or ("refused", a sentence for the user)."""


class Node:
    """Measures candidates on the host that it is made on, in workers that may die.

    What a candidate does to its worker does not reach this process. One call at a time.
    """

    def __init__(
        self,
        target: Target,
        limits: Limits,
        plan: TimingPlan,
        options: Mapping[str, Any],
    ) -> None:
        """``options`` are further arguments of ``LocalRunner``, which starts when it is needed."""
        self._target, self._limits, self._plan = target, limits, plan
        self._options = dict(options)
        self._runner: LocalRunner | None = None

    def described(self) -> dict[str, Any]:
        """What this host is, what is installed here, and the process that this is."""
        return {
            "target": asdict(native(self._target.threads)),
            "versions": installed(PACKAGES),
            "process": os.getpid(),
        }

    def measure(
        self,
        task: Task,
        candidates: Sequence[Candidate],
        known: Sequence[Measurement],
        forget: bool,
    ) -> Iterator[Answer]:
        """One answer for each candidate, in order.

        ``known`` is what was measured elsewhere; with ``forget`` no candidate is given up for being
        slower than those before.
        """
        try:
            if self._runner is None:
                self._runner = LocalRunner(
                    self._target, self._limits, plan=self._plan, **self._options
                )
            self._runner.remember(task, known)
            if forget:
                self._runner.forget(task)
            for found in self._runner.run(task, candidates):
                yield "found", found
        except TaskNotMeasurable as error:
            yield "unmeasurable", str(error)
        except UserError as error:
            yield "refused", str(error)
