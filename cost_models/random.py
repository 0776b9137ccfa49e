"""The cost model that knows nothing: the baseline of every comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from cost_models.base import CostModel, CostModelError, Observation
from cost_models.features import features_or_none
from search_spaces.task import Candidate, Target, Task

if TYPE_CHECKING:
    from cost_models.base import Scores


class RandomModel(CostModel):
    """Scores at random, in a sequence fixed by ``seed``; refuses what the space refuses."""

    def __init__(self, seed: int = 0) -> None:
        import numpy as np

        self.seed = seed
        self._rng = np.random.default_rng(seed)

    def fit(self, observations: Sequence[Observation]) -> None:
        """Learn nothing."""

    def rank(self, task: Task, target: Target, candidates: Sequence[Candidate]) -> Scores:
        """Random scores in [0, 1), ``-inf`` for what the space refuses."""
        import numpy as np

        scores: Scores = self._rng.random(len(candidates))
        for i, candidate in enumerate(candidates):
            if features_or_none(task, target, candidate) is None:
                scores[i] = -np.inf
        return scores

    def to_bytes(self) -> bytes:
        """The seed, as JSON."""
        return json.dumps({"kind": "random", "seed": self.seed}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """A model that starts again from the stored seed."""
        try:
            stored = json.loads(data)
            if stored["kind"] != "random":
                raise CostModelError(f"this is a {stored['kind']!r} cost model, not a random one")
            return cls(int(stored["seed"]))
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise CostModelError(f"not a stored cost model: {error}") from None
