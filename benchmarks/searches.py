"""The searches that ``benchmarks.search`` compares: ours by ``tune_tasks``, and MetaSchedule's.

They share one engine that measures each candidate once. A search is charged what its candidates
took to be measured, whoever measured them first, and the time it thinks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.measure.base import Measurement, Runner
from benchmarks.search_figures import Key, Look, ranking
from search_spaces.task import Candidate, Target, Task

METASCHEDULE = "metaschedule"
TRANSFER = "transfer"

ROUNDS = 5
"""How often the leaders are measured again."""


def key_of(task: Task, measurement: Measurement) -> Key:
    """What a measurement is known by here."""
    return task.workload.key, measurement.candidate.key


def seconds_of(measurement: Measurement) -> float | None:
    """Seconds of a right candidate."""
    return getattr(measurement.outcome, "seconds", None)


class Engine:
    """Measures each candidate once, and knows what that took."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.known: dict[Key, Measurement] = {}
        self.cost: dict[Key, float] = {}

    def run(self, task: Task, candidates: Sequence[Candidate]) -> list[Measurement]:
        """What became of ``candidates``, in their order."""
        keys = [(task.workload.key, candidate.key) for candidate in candidates]
        fresh = {k: c for k, c in zip(keys, candidates, strict=True) if k not in self.known}
        begun = time.perf_counter()
        for measurement in self.runner.run(task, list(fresh.values())):
            self.known[key_of(task, measurement)] = measurement
        each = (time.perf_counter() - begun) / max(1, len(fresh))
        self.cost.update(dict.fromkeys(fresh, each))
        return [self.known[key] for key in keys]


@dataclass
class Searcher(Runner):
    """One search, seen as the runner that it measures by."""

    engine: Engine
    target: Target
    looks: list[Look] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds that the engine took of its time."""
    charged: float = 0.0

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        before = time.perf_counter()
        found = self.engine.run(task, candidates)
        self.waited += time.perf_counter() - before
        seen = {look.key for look in self.looks}
        for measurement in found:
            key = key_of(task, measurement)
            if key in seen:  # MetaSchedule may ask twice
                continue
            seen.add(key)
            self.charged += self.engine.cost[key]
            self.looks.append(Look(key, seconds_of(measurement), self.thinking + self.charged))
        yield from found

    @property
    def thinking(self) -> float:
        """Seconds since it began, without those of the engine; to be asked while it goes on."""
        return time.perf_counter() - self.begun - self.waited

    @property
    def thought(self) -> float:
        """``thinking`` at the last look."""
        return self.looks[-1].clock - self.charged if self.looks else 0.0

    def close(self) -> None:
        """The engine is not its own."""


def searched(
    tasks: Sequence[Task],
    engine: Engine,
    sampler: str,
    database: Path,
    *,
    trials: int,
    batch: int,
    seed: int,
    taught: Sequence[Path] = (),
) -> Searcher:
    """Let ``sampler`` search ``tasks``; its records are left in ``database``, a new file.

    "transfer" is our default sampler with what the databases ``taught`` know. Our samplers go
    through the search that ``autotune tune`` does, without its finals: this benchmark holds its
    own. MetaSchedule leaves no records.
    """
    from autotune.search.budget import Budget
    from autotune.search.loop import tune_tasks
    from autotune.search.settings import SearchSettings
    from autotune.search.study import Patience
    from tuning_db.database import TuningDatabase
    from tuning_db.exchange import merge

    target = engine.runner.target
    if sampler == METASCHEDULE:
        from benchmarks import metaschedule

        searcher = Searcher(engine, target)
        metaschedule.search(tasks, target, searcher.run, trials=trials, seed=seed)
        return searcher
    settings = SearchSettings(
        budget=Budget(trials),
        sampler="cost-model" if sampler == TRANSFER else sampler,
        seed=seed,
        batch=batch,
        rounds=0,
        patience=Patience(least=10**9),
        transfer=sampler == TRANSFER,
    )
    with TuningDatabase.open(database) as opened:
        for path in taught:
            with TuningDatabase.open(path) as other:
                merge(opened, other)
        searcher = Searcher(engine, target)
        tune_tasks(tasks, target, searcher, opened, settings)
    return searcher


def again(tasks: Sequence[Task], engine: Engine, keys: Sequence[Key]) -> dict[Key, float]:
    """Seconds of each of ``keys``, the median of rounds in which all have their turn."""
    taken: dict[Key, list[float]] = {key: [] for key in keys}
    for number in range(ROUNDS):
        for task in tasks:
            mine = [engine.known[key].candidate for key in keys if key[0] == task.workload.key]
            engine.runner.forget(task)
            for measurement in engine.runner.run(task, mine if number % 2 else mine[::-1]):
                seconds = seconds_of(measurement)
                if seconds is not None:
                    taken[key_of(task, measurement)].append(seconds)
    return {key: statistics.median(values) for key, values in taken.items() if values}


LEARNED = 32
"""Candidates that the cost model learns from before it orders the others of its tasks."""


def judged(
    tasks: Sequence[Task], engine: Engine, others: Sequence[tuple[Sequence[Task], Engine]]
) -> dict[str, Any]:
    """How the cost model orders candidates that it has not seen, the median over ``tasks``.

    "within": after ``LEARNED`` of the same task; "unseen": after all of ``others``; "both".
    """
    ground = [
        seen for their, engine in others for task in their for seen in _observed(task, engine)
    ]
    found: dict[str, list[dict[str, float]]] = {}
    for task in tasks:
        for way, scores in _judged(_observed(task, engine), ground).items():
            found.setdefault(way, []).append(scores)
    return {
        way: {name: statistics.median(one[name] for one in several) for name in several[0]}
        for way, several in found.items()
    }


def _observed(task: Task, engine: Engine) -> list[Any]:
    """What was measured of ``task`` and can be described, as the cost model takes it."""
    from cost_models.base import Observation
    from cost_models.features import features_or_none
    from search_spaces.registry import spaces_for

    target = engine.runner.target
    spaces = {space.name for space in spaces_for(task, target)}
    found = []
    for key, measurement in engine.known.items():
        if key[0] != task.workload.key or measurement.candidate.space not in spaces:
            continue
        features = features_or_none(task, target, measurement.candidate)
        if features is not None:
            seconds = seconds_of(measurement)
            found.append(
                Observation(task, target, measurement.candidate, features, seconds, seconds is None)
            )
    return found


def _judged(seen: Sequence[Any], ground: Sequence[Any]) -> dict[str, dict[str, float]]:
    import numpy as np

    from cost_models.xgboost import XGBoostModel

    right = [one for one in seen if one.seconds is not None]
    order = np.random.default_rng(0).permutation(len(right))
    train, test = [right[i] for i in order[:LEARNED]], [right[i] for i in order[LEARNED:]]
    found: dict[str, dict[str, float]] = {}
    if len(test) < LEARNED:
        return found
    for way, grounded, own in (
        ("within", False, True), ("unseen", True, False), ("both", True, True),
    ):  # fmt: skip
        model = XGBoostModel()
        if grounded:
            if not ground:
                continue
            model.ground(ground)
        if own:
            model.fit(train)
        scores = model.rank(test[0].task, test[0].target, [one.candidate for one in test])
        found[way] = ranking(list(map(float, scores)), [one.seconds for one in test])
    return found
