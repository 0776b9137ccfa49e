"""Boosted trees on features of the decisions: the cost model that is used by default."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

from cost_models.base import CostModel, CostModelError, Observation
from cost_models.features import Schema, features_or_none, kind_of
from search_spaces.task import Candidate, Target, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cost_models.base import Scores

Objective = Literal["regression", "pairwise"]

KIND = "xgboost"
FORMAT = 1
"""Raised whenever stored models of before would be read wrongly."""

OWN_ENOUGH = 16
"""Measured candidates of a task from which on its own ranking is followed in full."""

KIN_ENOUGH = 32
"""Measured candidates of other tasks of the same kind that are worth half of that."""

_BOOSTER: dict[Objective, dict[str, Any]] = {
    # Measured on synthetic eight-parameter landscapes with interactions and failing regions: both
    # order the bulk of one task alike; with several tasks in one model, regression on throughput
    # normalised within the task ranks better (Spearman 0.70 against 0.52 with 6 x 48 samples) in
    # half the time.
    "regression": {"objective": "reg:squarederror"},
    "pairwise": {
        "objective": "rank:pairwise",
        "lambdarank_pair_method": "mean",
        "lambdarank_num_pair_per_sample": 8,
        "min_child_weight": 0.1,
    },
}


class XGBoostModel(CostModel):
    """Ranks by boosted trees, fitted anew from all observations in some tens of milliseconds.

    ``objective`` is "regression" (log throughput, normalised within each task) or "pairwise"
    (order within each task). Failures count as worse than the slowest of their task. Equal
    observations in equal order and an equal ``seed`` give an equal model.
    """

    def __init__(
        self, objective: Objective = "regression", *, rounds: int = 80, seed: int = 0
    ) -> None:
        self.objective: Objective = objective
        self.rounds = rounds
        self.seed = seed
        self._booster: Any = None
        self._schema = Schema(())
        self._own: dict[str, int] = {}
        self._kin: dict[str, int] = {}

    def fit(self, observations: Sequence[Observation]) -> None:
        """Replace the trees by new ones; needs two observations to say anything at all."""
        self._own, self._kin = {}, {}
        for seen in observations:
            key, kind = _key(seen.task, seen.target), kind_of(seen.task)
            self._own[key] = self._own.get(key, 0) + 1
            self._kin[kind] = self._kin.get(kind, 0) + 1
        self._booster = None
        if len(observations) < 2:
            return
        import xgboost

        self._schema = Schema.of(seen.features for seen in observations)
        # Pairs are drawn within a group, which must lie together.
        order = sorted(
            range(len(observations)),
            key=lambda i: _key(observations[i].task, observations[i].target),
        )
        sorted_ = [observations[i] for i in order]
        keys = [_key(seen.task, seen.target) for seen in sorted_]
        groups = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        data = xgboost.DMatrix(
            self._schema.matrix(
                [(seen.task, seen.target) for seen in sorted_], [seen.features for seen in sorted_]
            ),
            label=self._labels(sorted_, keys),
            qid=[groups[key] for key in keys] if self.objective == "pairwise" else None,
            nthread=1,
        )
        settings = {
            "tree_method": "hist",
            "max_bin": 64,
            "max_depth": 4,
            "eta": 0.2,
            "subsample": 0.8,
            "colsample_bynode": 0.7,
            "nthread": 1,  # two threads take longer than one on so little data
            "seed": self.seed,
            "verbosity": 0,
            **_BOOSTER[self.objective],
        }
        self._booster = xgboost.train(settings, data, self.rounds)

    def _labels(self, seen: Sequence[Observation], keys: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        labels = np.zeros(len(seen), dtype=np.float32)
        owners = np.array(keys)
        logs = np.array(
            [math.nan if s.failed or not s.seconds else -math.log(s.seconds) for s in seen]
        )
        for key in dict.fromkeys(keys):
            mine = owners == key
            good = mine & ~np.isnan(logs)
            if not good.any():
                labels[mine] = -1.0
                continue
            spread = float(logs[good].std()) or 1.0
            # Far below the median all are equally useless: their distances must not cost splits.
            labels[good] = np.maximum((logs[good] - float(np.median(logs[good]))) / spread, -2.0)
            labels[mine & np.isnan(logs)] = labels[good].min() - 0.5
        return labels

    def rank(self, task: Task, target: Target, candidates: Sequence[Candidate]) -> Scores:
        """Scores of the trees; all zero (but for what is refused) before the first ``fit``."""
        import numpy as np

        scores = np.full(len(candidates), -np.inf)
        rows = [features_or_none(task, target, candidate) for candidate in candidates]
        valid = [i for i, row in enumerate(rows) if row is not None]
        if not valid:
            return scores
        if self._booster is None:
            scores[valid] = 0.0
            return scores
        matrix = self._schema.matrix(
            [(task, target)] * len(valid), [row for row in rows if row is not None]
        )
        scores[valid] = self._booster.inplace_predict(matrix, validate_features=False)
        return scores

    def trust(self, task: Task, target: Target) -> float:
        """Grows with the task's own observations; at most a half from others of its kind."""
        if self._booster is None:
            return 0.0
        own = self._own.get(_key(task, target), 0)
        kin = self._kin.get(kind_of(task), 0) - own
        return max(min(1.0, own / OWN_ENOUGH), 0.5 if kin >= KIN_ENOUGH else 0.0)

    def to_bytes(self) -> bytes:
        """One line of JSON that describes the model, then XGBoost's UBJ (nothing if not fitted)."""
        trees = b"" if self._booster is None else bytes(self._booster.save_raw("ubj"))
        described = {
            "kind": KIND,
            "format": FORMAT,
            "sha256": hashlib.sha256(trees).hexdigest(),
            "objective": self.objective,
            "rounds": self.rounds,
            "seed": self.seed,
            "decisions": self._schema.decisions,
            "own": self._own,
            "kin": self._kin,
        }
        return json.dumps(described).encode() + b"\n" + trees

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; raises ``CostModelError``."""
        head, _, trees = data.partition(b"\n")
        try:
            stored = json.loads(head)
            if stored["kind"] != KIND or stored["format"] != FORMAT:
                raise CostModelError(
                    f"stored as {stored['kind']} {stored['format']}, expected {KIND} {FORMAT}"
                )
            # XGBoost aborts the process on some truncated files: it sees whole ones only.
            if hashlib.sha256(trees).hexdigest() != stored["sha256"]:
                raise CostModelError("the stored cost model is damaged: its digest does not fit")
            made = cls(stored["objective"], rounds=stored["rounds"], seed=stored["seed"])
            made._schema = Schema(tuple(stored["decisions"]))
            made._own, made._kin = dict(stored["own"]), dict(stored["kin"])
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise CostModelError(f"not a stored cost model: {error!r}") from None
        if trees:
            import xgboost

            made._booster = xgboost.Booster({"nthread": 1})
            try:
                made._booster.load_model(bytearray(trees))
            except xgboost.core.XGBoostError as error:
                raise CostModelError(f"XGBoost cannot read the trees: {error}") from None
        return made


@lru_cache(maxsize=64)
def _digest(target: Target) -> str:
    return target.digest


def _key(task: Task, target: Target) -> str:
    return f"{task.workload.key}@{_digest(target)}"
