"""The contract of a cost model: which candidates are worth a measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from search_spaces.task import Candidate, Target, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]
else:
    Scores = Any


class CostModelError(ValueError):
    """Stored bytes are not a cost model of this kind and version; the text says why."""


@dataclass(frozen=True)
class Observation:
    """What became of one candidate.

    ``features`` are the numbers of the decisions (``cost_models.features.decision_features``).
    ``seconds`` is the time of one call, None where it ``failed`` (did not build, crashed, timed
    out, was wrong): a failure says as much about where not to look as a slow time does.
    """

    task: Task = field(repr=False)
    target: Target = field(repr=False)
    candidate: Candidate
    features: Mapping[str, float] = field(repr=False)
    seconds: float | None
    failed: bool


class CostModel(ABC):
    """Ranks candidates of one task against each other.

    Made of a ``seed``, by keyword, for each run. Four methods make one; the others may be left.

    Scores compare candidates of the same task only. One model serves all tasks of a run: it may
    carry over what it learned from one to the other.
    """

    @abstractmethod
    def fit(self, observations: Sequence[Observation]) -> None:
        """Learn from ``observations``, which replace those of an earlier call.

        Called between measurements, never while one is running. Must take few observations
        (even none), and groups of equal times.
        """

    name = ""
    """Of the model and its version: what ``ground_bytes`` is stored by. Empty: it does not
    learn from earlier runs."""

    def ground(self, observations: Sequence[Observation]) -> None:  # noqa: B027
        """Learn from other tasks and targets, once; every later ``fit`` goes on from there.

        A model that cannot do that leaves this as it is, and learns from each run alone.
        """

    def ground_bytes(self) -> bytes:
        """What ``ground`` learned, for ``read_ground`` of another process. Never a pickle."""
        return b""

    def read_ground(self, data: bytes) -> None:  # noqa: B027
        """Take in what ``ground_bytes`` wrote; raises ``CostModelError`` for anything else."""

    @abstractmethod
    def rank(self, task: Task, target: Target, candidates: Sequence[Candidate]) -> Scores:
        """One score for each candidate, higher is better; ``-inf`` where its space refuses it.

        Called with hundreds of candidates for each measurement; touches no compiler.
        """

    def trust(self, task: Task, target: Target) -> float:
        """How far ``rank`` should be followed for this task, from 0 (not at all) to 1.

        A sampler explores at random with at least one minus this share of its proposals.
        """
        return 1.0

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The fitted model, as bytes that ``from_bytes`` reads. Never a pickle."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The model that ``to_bytes`` wrote; raises ``CostModelError`` for anything else."""

    def save(self, path: str | Path) -> None:
        """Write the fitted model to ``path``; raises ``OSError``."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote; raises ``OSError`` or ``CostModelError``."""
        return cls.from_bytes(Path(path).read_bytes())
