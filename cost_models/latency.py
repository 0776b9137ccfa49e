"""What a task that was never measured would take, from those that were.

For choices between graphs: most of them can be told from the best one by such an estimate, and
only those that cannot are worth a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cost_models.features import Schema
from search_spaces.task import Target, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST = 24
"""Tasks with a known time below which nothing is said."""

FOLDS = 6
SURE = 0.95
"""Share of the tasks that are no faster than ``Estimate.least``, judged on tasks left out."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one call: most likely, and what it may take at the least."""

    seconds: float
    least: float


class LatencyModel:
    """Boosted trees on how far a task is from the best rates that any task has reached.

    ``known`` are tasks with the best seconds of one call that were measured. Deterministic.
    """

    def __init__(self, known: Sequence[tuple[Task, Target, float]], rounds: int = 60) -> None:
        self.rounds = rounds
        self.enough = len(known) >= FEWEST
        if not self.enough:
            return
        import numpy as np

        # Copies have no FLOPs, and there may be nothing but copies.
        self._compute = max(task.flops / seconds for task, _, seconds in known) or 1.0
        self._traffic = max(task.bytes / seconds for task, _, seconds in known) or 1.0
        tasks = [(task, target) for task, target, _ in known]
        labels = np.array(
            [math.log2(seconds / self._floor(task)) for task, _, seconds in known], np.float32
        )
        errors = np.zeros(len(known))
        for fold in range(FOLDS):
            out = np.arange(len(known)) % FOLDS == fold
            kept = [pair for pair, left in zip(tasks, out, strict=True) if not left]
            trees = self._trained(kept, labels[~out])
            errors[out] = self._told(trees, [p for p, left in zip(tasks, out, strict=True) if left])
        self._over = float(np.quantile(errors - labels, SURE))
        self._trees = self._trained(tasks, labels)

    def estimate(self, task: Task, target: Target) -> Estimate | None:
        """What one call of ``task`` takes; None where too little is known."""
        if not self.enough:
            return None
        doublings = float(self._told(self._trees, [(task, target)])[0])
        seconds = self._floor(task) * 2.0**doublings
        return Estimate(seconds, seconds / 2.0 ** max(0.0, self._over))

    def _floor(self, task: Task) -> float:
        least = max(task.flops / self._compute, task.bytes / self._traffic)
        return max(least, 1e-9)

    def _trained(self, tasks: Sequence[tuple[Task, Target]], labels: NDArray[np.float32]) -> Any:
        import xgboost

        data = xgboost.DMatrix(_matrix(tasks), label=labels, nthread=1)
        settings = {"max_depth": 3, "eta": 0.15, "nthread": 1, "seed": 0, "verbosity": 0}
        return xgboost.train(settings, data, self.rounds)

    def _told(self, trees: Any, tasks: Sequence[tuple[Task, Target]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = trees.inplace_predict(_matrix(tasks), validate_features=False)
        return found


def _matrix(tasks: Sequence[tuple[Task, Target]]) -> NDArray[np.float32]:
    return Schema(()).matrix(tasks, [{}] * len(tasks))
