"""On which of the targets that a database knows a model is fastest, and on which it is cheapest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.database import open_database
from autotune.errors import InputError
from tuning_db.records import TargetRow
from tuning_db.statistics import ModelStats

_FILES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Recommendation:
    """A model on one target.

    ``seconds`` is the sum over the tasks of calls x best; where ``tuned`` is less than ``tasks`` it
    leaves some out, and so is too low. ``per_core`` is inferences a second for each core that one
    inference uses. ``cost`` is that of a million inferences in the currency of the prices, None
    without one: of a machine that runs as many inferences at a time as its cores allow.
    """

    target: str
    cpu: str
    device: str
    cores: int
    threads: int
    seconds: float
    tuned: int
    tasks: int
    per_core: float
    cost: float | None

    @property
    def complete(self) -> bool:
        """Whether every task counts."""
        return self.tuned == self.tasks


def recommend(
    model: str,
    database: str | Path,
    prices: Mapping[str, float] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Recommendation, ...]:
    """The targets on which ``database`` knows ``model``.

    That is a name, the first letters of a digest, or an .onnx or .pt2 file, of which
    ``input_shapes`` fixes the dimensions that it leaves open. ``prices`` are of an hour of the
    whole machine, by the first letters of a target's digest, its device key, or its CPU's name.
    Cheapest first where all have a price, else fastest first; after them those with tasks that were
    not tuned. Raises ``InputError`` for a model or a price that names nothing, or more than one
    model.
    """
    prices = dict(prices or {})
    with open_database(database, create=False, read_only=True) as opened:
        stats = opened.stats().models
        targets = {row.digest: row for row in opened.targets()}
    digest = ""
    if _is_file(model):
        from autotune.frontends import digest_of

        digest = digest_of(Path(model), input_shapes or {})
    if digest and all(row.digest != digest for row in stats):
        raise InputError(
            f"{database} does not know {model} with these input shapes: tune it for them first"
        )
    if input_shapes and not digest:
        raise InputError(f"--input is for a model by its file, and there is no file {model}")
    chosen = _of_model(digest or model, stats, database)
    used: set[str] = set()
    found = [_entry(row, targets[row.target], prices, used) for row in chosen if row.tuned]
    if not found:
        raise InputError(f"{database} has no records of {model}: tune it on some target first")
    unused = sorted(set(prices) - used)
    if unused:
        known = ", ".join(sorted({entry.cpu for entry in found}))
        raise InputError(
            f"--price {unused[0]} names no target on which {model} was tuned: there are {known}"
        )
    priced = all(entry.cost is not None for entry in found)

    def rank(entry: Recommendation) -> tuple[bool, float, str]:
        value = entry.cost if priced and entry.cost is not None else entry.seconds
        return (not entry.complete, value, entry.target)

    return tuple(sorted(found, key=rank))


def _is_file(model: str) -> bool:
    return Path(model).suffix.lower() in _FILES and Path(model).exists()


def _of_model(model: str, stats: tuple[ModelStats, ...], database: str | Path) -> list[ModelStats]:
    named = [row for row in stats if row.name == model]
    named = named or [row for row in stats if len(model) >= 4 and row.digest.startswith(model)]
    digests = sorted({row.digest for row in named})
    if not digests:
        known = ", ".join(sorted({row.name for row in stats})) or "none"
        missing = Path(model).suffix.lower() in _FILES
        there = f"there is no file {model}, and " if missing else ""
        raise InputError(f"{there}{database} knows no model {model}: it knows {known}")
    if len(digests) > 1:
        told = ", ".join(digest[:12] for digest in digests)
        raise InputError(
            f"{database} knows {model} in several forms (files or input shapes): name one by the "
            f"first letters of its digest, of {told}"
        )
    return named


def _entry(
    row: ModelStats, target: TargetRow, prices: Mapping[str, float], used: set[str]
) -> Recommendation:
    told = json.loads(target.description)
    cores, threads = int(told["cores"]), int(told["threads"])
    device = str(told.get("device", ""))
    names = [
        name
        for name in prices
        if name in (device, target.model) or (len(name) >= 4 and target.digest.startswith(name))
    ]
    used.update(names)
    per_second = max(1, cores // threads) / row.seconds
    return Recommendation(
        target=target.digest,
        cpu=target.model,
        device=device,
        cores=cores,
        threads=threads,
        seconds=row.seconds,
        tuned=row.tuned,
        tasks=row.tasks,
        per_core=1 / (row.seconds * threads),
        cost=prices[names[0]] / 3600 / per_second * 1e6 if names else None,
    )
