"""A tuning database as an Optuna storage, for optuna-dashboard and optuna.visualization.

One study for each task: its trials are the first measurements, with seconds of one call as value;
failed candidates are failed trials. The database stays the only source of truth: nothing reads the
storage back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError
from autotune.search.space import SPACE
from tuning_db.database import TuningDatabase
from tuning_db.records import Record

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def write_studies(
    database: TuningDatabase, output: Path, workload: str | None = None, target: str | None = None
) -> int:
    """Write the studies of all tasks (or of one workload, one target) to a new SQLite file.

    Returns how many there are. Raises ``InputError`` where ``output`` exists or cannot be written.
    """
    import optuna

    if output.exists():
        raise InputError(f"{output} exists: name another file with --output, or move it away")
    if not output.parent.is_dir():
        raise InputError(f"the folder {output.parent} does not exist: make it, or name another")
    names = {row.key: row.name for row in database.workloads()}
    models = {row.digest: row.model for row in database.targets()}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = 0
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{output.absolute()}")
        for digest in models:
            if target not in (None, digest):
                continue
            for key in names:
                if workload not in (None, key):
                    continue
                records = list(database.records(key, digest, final=False))
                if not records:
                    continue
                study = optuna.create_study(
                    storage=storage,
                    study_name=f"{names[key]} {key[:8]} on {models[digest]} {digest[:8]}",
                )
                study.set_user_attr("workload", key)
                study.set_user_attr("target", digest)
                study.add_trials(trials_of(records))
                count += 1
        storage.engine.dispose()
    finally:
        optuna.logging.set_verbosity(level)
    return count


def trials_of(records: Sequence[Record]) -> list[FrozenTrial]:
    """One finished trial for each record, in their order."""
    import optuna
    from optuna.trial import TrialState

    points = [_point(record) for record in records]
    distributions = _distributions(points)
    made = []
    for record, point in zip(records, points, strict=True):
        when = datetime.fromisoformat(record.time)
        right = record.seconds is not None
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE if right else TrialState.FAIL,
            value=record.seconds,
            params=point,
            distributions={name: distributions[name] for name in point},
            user_attrs={"outcome": record.outcome, "record": record.id, "run": record.run},
        )
        trial.datetime_start = trial.datetime_complete = when.replace(tzinfo=None)
        made.append(trial)
    return made


def _point(record: Record) -> dict[str, Any]:
    """The parameters by the names that the search has for them."""
    own = json.loads(record.parameters)
    return {SPACE: record.space, **{f"{record.space}.{name}": own[name] for name in sorted(own)}}


def _distributions(points: Sequence[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """What was drawn from, as far as the values tell: the spaces may not be installed any more."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    seen: dict[str, list[Any]] = {}
    for point in points:
        for name, value in point.items():
            seen.setdefault(name, []).append(value)
    found: dict[str, BaseDistribution] = {}
    for name, values in seen.items():
        kinds = {type(value) for value in values}
        if kinds == {int}:
            found[name] = IntDistribution(min(values), max(values))
        elif kinds <= {int, float}:
            found[name] = FloatDistribution(min(values), max(values))
        else:
            found[name] = CategoricalDistribution(sorted(set(values), key=repr))
    return found
