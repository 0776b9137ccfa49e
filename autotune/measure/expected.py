"""What workers compare with: the outputs of a task in a file in memory, which nobody can change."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from autotune.measure.data import outputs_of
from search_spaces.task import Task

_MOST_DRAWS = 4


class Reference:
    """The file in memory with the outputs to compare with, for each draw of inputs in turn.

    A worker writes it; once it is sealed nobody can change it any more.
    """

    def __init__(self, task: Task) -> None:
        size = sum(t.bytes for t in outputs_of(task.workload))
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.descriptor = os.memfd_create("autotune-reference", flags)
        self.draws: list[dict[str, Any]] = []
        self.precision = ""
        os.ftruncate(self.descriptor, _MOST_DRAWS * size)  # what is not written takes no memory

    def seal(self, draws: list[dict[str, Any]], precision: str) -> None:
        """It holds the outputs for ``draws``, and keeps them whatever a candidate does."""
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self.draws, self.precision = draws, precision

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.descriptor)
