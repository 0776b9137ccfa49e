"""Boosted trees on features of the decisions: the cost model that is used by default."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
FORMAT = 2
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


@dataclass
class _Trees:
    """A fitted booster and the columns that it reads."""

    booster: Any
    schema: Schema

    def predict(
        self,
        tasks: Sequence[tuple[Task, Target]],
        rows: Sequence[Mapping[str, float]],
        margin: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """One score a row, on top of ``margin``."""
        matrix = self.schema.matrix(tasks, rows)
        found: NDArray[np.float32] = self.booster.inplace_predict(
            matrix, predict_type="margin", base_margin=margin, validate_features=False
        )
        return found

    def to_bytes(self) -> bytes:
        """One line of JSON, then XGBoost's UBJ."""
        return _packed({"decisions": self.schema.decisions}, bytes(self.booster.save_raw("ubj")))

    @classmethod
    def from_bytes(cls, data: bytes) -> _Trees:
        """Read what ``to_bytes`` wrote; raises ``CostModelError``."""
        import xgboost

        # XGBoost aborts the process on some truncated files: it sees whole ones only.
        told, trees = _unpacked(data)
        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(bytearray(trees))
            return cls(booster, Schema(tuple(told["decisions"])))
        except (KeyError, TypeError) as error:
            raise CostModelError(f"not a stored cost model: {error!r}") from None
        except xgboost.core.XGBoostError as error:
            raise CostModelError(f"XGBoost cannot read the trees: {error}") from None


class XGBoostModel(CostModel):
    """Ranks by boosted trees, fitted anew from all observations in some tens of milliseconds.

    ``objective`` is "regression" (log throughput, normalised within each task) or "pairwise"
    (order within each task). Failures count as worse than the slowest of their task. Equal
    observations in equal order and an equal ``seed`` give an equal model. After ``ground`` the
    trees of ``fit`` only correct those of other tasks.
    """

    name = f"{KIND}-{FORMAT}"

    def __init__(
        self, objective: Objective = "regression", *, rounds: int = 80, seed: int = 0
    ) -> None:
        self.objective: Objective = objective
        self.rounds = rounds
        self.seed = seed
        self._own_trees: _Trees | None = None
        self._ground: _Trees | None = None
        self._own: dict[str, int] = {}
        self._kin: dict[str, int] = {}
        self._ground_kin: dict[str, int] = {}

    def ground(self, observations: Sequence[Observation]) -> None:
        """Trees of all that earlier searches saw, which later trees correct."""
        self._ground_kin = {}
        for seen in observations:
            kind = kind_of(seen.task)
            self._ground_kin[kind] = self._ground_kin.get(kind, 0) + 1
        self._ground = self._trained(observations, None) if len(observations) > 1 else None

    def fit(self, observations: Sequence[Observation]) -> None:
        """Replace the trees by new ones; needs two observations to say anything at all."""
        self._own, self._kin = {}, {}
        for seen in observations:
            key, kind = _key(seen.task, seen.target), kind_of(seen.task)
            self._own[key] = self._own.get(key, 0) + 1
            self._kin[kind] = self._kin.get(kind, 0) + 1
        self._own_trees = None
        if len(observations) > 1:
            self._own_trees = self._trained(observations, self._ground)

    def _trained(self, observations: Sequence[Observation], ground: _Trees | None) -> _Trees:
        import xgboost

        schema = Schema.of(seen.features for seen in observations)
        # Pairs are drawn within a group, which must lie together.
        order = sorted(
            range(len(observations)),
            key=lambda i: _key(observations[i].task, observations[i].target),
        )
        sorted_ = [observations[i] for i in order]
        keys = [_key(seen.task, seen.target) for seen in sorted_]
        groups = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        tasks = [(seen.task, seen.target) for seen in sorted_]
        rows = [seen.features for seen in sorted_]
        data = xgboost.DMatrix(
            schema.matrix(tasks, rows),
            label=self._labels(sorted_, keys),
            base_margin=None if ground is None else ground.predict(tasks, rows),
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
        return _Trees(xgboost.train(settings, data, self.rounds), schema)

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
        """Scores of the trees; all zero (but for what is refused) before anything was learned."""
        import numpy as np

        scores = np.full(len(candidates), -np.inf)
        found = [features_or_none(task, target, candidate) for candidate in candidates]
        valid = [i for i, row in enumerate(found) if row is not None]
        if not valid:
            return scores
        tasks = [(task, target)] * len(valid)
        rows = [row for row in found if row is not None]
        value = None if self._ground is None else self._ground.predict(tasks, rows)
        if self._own_trees is not None:
            value = self._own_trees.predict(tasks, rows, value)
        scores[valid] = 0.0 if value is None else value
        return scores

    def trust(self, task: Task, target: Target) -> float:
        """Grows with the task's own observations; at most a half from others of its kind."""
        if self._own_trees is None and self._ground is None:
            return 0.0
        own = self._own.get(_key(task, target), 0)
        kind = kind_of(task)
        kin = self._kin.get(kind, 0) + self._ground_kin.get(kind, 0) - own
        return max(min(1.0, own / OWN_ENOUGH), 0.5 if kin >= KIN_ENOUGH else 0.0)

    def ground_bytes(self) -> bytes:
        """A line of JSON, then the trees."""
        trees = b"" if self._ground is None else self._ground.to_bytes()
        return _packed({"kin": self._ground_kin}, trees)

    def read_ground(self, data: bytes) -> None:
        """Read what ``ground_bytes`` wrote; raises ``CostModelError``."""
        stored, trees = _unpacked(data)
        try:
            kin = {str(kind): int(count) for kind, count in stored["kin"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CostModelError(f"not a stored cost model: {error!r}") from None
        self._ground = _Trees.from_bytes(trees) if trees else None
        self._ground_kin = kin

    def to_bytes(self) -> bytes:
        """One line of JSON that describes the model, then its trees, then its ground."""
        trees = b"" if self._own_trees is None else self._own_trees.to_bytes()
        described = {
            "objective": self.objective,
            "rounds": self.rounds,
            "seed": self.seed,
            "own": self._own,
            "kin": self._kin,
            "trees": len(trees),
        }
        return _packed(described, trees + self.ground_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; raises ``CostModelError``."""
        stored, rest = _unpacked(data)
        try:
            made = cls(stored["objective"], rounds=stored["rounds"], seed=stored["seed"])
            made._own, made._kin = dict(stored["own"]), dict(stored["kin"])
            size = int(stored["trees"])
        except (KeyError, TypeError, ValueError) as error:
            raise CostModelError(f"not a stored cost model: {error!r}") from None
        made._own_trees = _Trees.from_bytes(rest[:size]) if size else None
        made.read_ground(rest[size:])
        return made


def _packed(described: Mapping[str, Any], rest: bytes) -> bytes:
    """One line of JSON, then ``rest``, which it holds the digest of."""
    digest = hashlib.sha256(rest).hexdigest()
    told = {"kind": KIND, "format": FORMAT, "sha256": digest, **described}
    return json.dumps(told).encode() + b"\n" + rest


def _unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What ``_packed`` was given; raises ``CostModelError``."""
    head, _, rest = data.partition(b"\n")
    try:
        stored = json.loads(head)
        kind, version, digest = stored["kind"], stored["format"], stored["sha256"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CostModelError(f"not a stored cost model: {error!r}") from None
    if (kind, version) != (KIND, FORMAT):
        raise CostModelError(f"stored as {kind} {version}, expected {KIND} {FORMAT}")
    if hashlib.sha256(rest).hexdigest() != digest:
        raise CostModelError("the stored cost model is damaged: its digest does not fit")
    return stored, rest


@lru_cache(maxsize=64)
def _digest(target: Target) -> str:
    return target.digest


def _key(task: Task, target: Target) -> str:
    return f"{task.workload.key}@{_digest(target)}"
