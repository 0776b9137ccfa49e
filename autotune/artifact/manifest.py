"""What an artifact says of itself: the text of ``manifest.json``, from plain dataclasses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autotune.frontends.base import TensorSpec
from autotune.runtime import FORMAT
from autotune.shares import shares
from search_spaces.task import ParameterValue, Target


@dataclass(frozen=True)
class ChosenSchedule:
    """A schedule taken from a database or a lock file: its trace, and where it comes from.

    ``candidate``, ``run`` and ``time`` name the record; they are the same in every database that
    holds it. ``seconds`` is what the record says of one call.
    """

    trace: str = field(repr=False)
    space: str
    version: int
    parameters: Mapping[str, ParameterValue]
    candidate: str
    run: str
    time: str
    seconds: float | None = None

    @property
    def origin(self) -> str:
        """The record, for people."""
        return f"the record of candidate {self.candidate[:12]} in run {self.run}"


@dataclass(frozen=True)
class TaskEntry:
    """How one task was compiled.

    ``source`` is "record" (tuned), "default" (the guess of a search space) or "unscheduled" (no
    space could schedule it). ``candidate``, ``run`` and ``time`` name the record, as in
    ``ChosenSchedule``. ``note`` says why it is not what was wanted; "" where it is. ``functions``
    are the names in the library; ``arguments`` ("1x24x24x64 float32", outputs last), ``flops`` and
    ``bytes`` are of one call; ``arithmetic`` is the dtype of what it multiplies.
    """

    workload: str
    name: str
    calls: int
    source: str
    space: str = ""
    version: int = 0
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    candidate: str = ""
    run: str = ""
    time: str = ""
    seconds: float | None = None
    note: str = ""
    functions: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    flops: float = 0.0
    bytes: int = 0
    arithmetic: str = ""


@dataclass(frozen=True)
class CallEntry:
    """A call of a kernel: the name of the function, as the task has it, and what the call is for.

    ``operators`` are names of the original model's, in its order; none where nothing is known.
    """

    function: str
    operators: tuple[str, ...]


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact: SHA-256 in hex and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """The manifest of an artifact. ``model`` has the model's name and digest.

    ``weights`` ("offset" in bytes, "shape", "dtype") are what the program takes after its inputs,
    in order: out of the file of weights beside it, or, where sizes share one, out of that in the
    directory above, of the SHA-256 ``shared_weights``. ``constant_outputs`` names the outputs that
    are no result of any computation. ``calls`` are those of kernels in one inference, in order.
    """

    model: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: Target
    versions: Mapping[str, str]
    graph: Mapping[str, Any]
    tasks: tuple[TaskEntry, ...]
    files: Mapping[str, FileEntry]
    weights: tuple[Mapping[str, Any], ...] = ()
    shared_weights: str = ""
    notes: tuple[str, ...] = ()
    constant_outputs: tuple[str, ...] = ()
    calls: tuple[CallEntry, ...] = ()
    format: int = FORMAT

    @property
    def tuned(self) -> int:
        """How many tasks use a record."""
        return sum(task.source == "record" for task in self.tasks)

    @property
    def summary(self) -> str:
        """One line: "41 of 44 tasks tuned, 3 default"."""
        kinds = {"default": 0, "unscheduled": 0}
        for task in self.tasks:
            if task.source in kinds:
                kinds[task.source] += 1
        rest = "".join(f", {count} {kind}" for kind, count in kinds.items() if count)
        return f"{self.tuned} of {len(self.tasks)} tasks tuned{rest}"

    @property
    def shares(self) -> dict[str, float]:
        """By search space, the share of the time of the tasks that have a record."""
        timed = [task for task in self.tasks if task.source == "record" and task.seconds]
        return shares((task.space, task.calls * (task.seconds or 0.0)) for task in timed)

    @property
    def spaces(self) -> dict[str, int]:
        """By search space, how many tasks it schedules, tuned or not; "" stands for none."""
        return dict(Counter(task.space for task in self.tasks).most_common())

    def text(self) -> str:
        """The manifest as JSON text, the same bytes for equal manifests."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
