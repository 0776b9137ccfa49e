"""What the database stores: keys, texts and numbers, nothing that needs a compiler to be read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorkloadRow:
    """A workload as stored: ``function`` is its PrimFunc as TVM's JSON text."""

    key: str
    name: str
    function: str = field(repr=False)
    description: str = field(repr=False)


@dataclass(frozen=True)
class TargetRow:
    """A target as stored: ``description`` is the JSON text of its fields."""

    digest: str
    model: str
    description: str = field(repr=False)


@dataclass(frozen=True)
class Record:
    """One measured candidate.

    ``parameters``, ``trace``, ``detail`` and ``versions`` are JSON texts; ``outcome`` is one of
    the kinds in ``autotune.measure.outcome``; ``seconds`` is the estimate and ``samples`` all
    single executions, both in seconds (None and empty unless measured); ``error`` is the
    largest scaled error against the reference, ``tolerance`` what was allowed. ``run`` is the id of
    the tuning run and ``time`` the UTC time in ISO 8601. ``id`` is given by the database.
    """

    workload: str
    target: str
    space: str
    space_version: int
    parameters: str
    candidate: str
    outcome: str
    seconds: float | None = None
    samples: tuple[float, ...] = field(default=(), repr=False)
    error: float | None = None
    tolerance: float | None = None
    detail: str = field(default="{}", repr=False)
    trace: str = field(default="", repr=False)
    versions: str = field(default="{}", repr=False)
    run: str = ""
    time: str = ""
    final: bool = False
    id: int | None = None


@dataclass(frozen=True)
class TaskRow:
    """What a model calls on a target: ``flops`` and ``bytes`` (moved) are of one call."""

    workload: str
    calls: int
    flops: float
    bytes: int


@dataclass(frozen=True)
class ModelRow:
    """A model as stored: ``digest`` identifies the model file and its input shapes."""

    digest: str
    name: str


@dataclass(frozen=True)
class RunRow:
    """One tuning run: where records come from.

    ``settings`` and ``versions`` are JSON texts, ``started`` and ``finished`` UTC times in ISO
    8601 (``finished`` is None while it works, and for ever after a kill). ``trials_done`` counts
    the first measurements it recorded, of which some may have been pruned since.
    """

    id: str
    target: str
    model: str | None
    started: str
    finished: str | None
    settings: str
    versions: str
    trials_done: int
