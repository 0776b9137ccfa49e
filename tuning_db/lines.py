"""The lines of an exported database: one JSON object each, of a documented and closed schema."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from tuning_db.rows import OUTCOMES, is_object

FORMAT = "autotune-tuning-db"
VERSION = 1

# Bounds that no real value comes near: what lies beyond was not written by an export, and would
# only fill the disk or a terminal.
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Text = Annotated[str, Field(max_length=64 << 20)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Line(BaseModel):
    """One line: no other fields than named, no conversion of types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


LineType = TypeVar("LineType", bound=Line)


class Header(Line):
    """The first line of every export."""

    kind: Literal["header"] = "header"
    format: str = FORMAT
    version: int = VERSION


class TargetLine(Line):
    """A target; ``digest`` must be the digest of ``description``."""

    kind: Literal["target"] = "target"
    digest: Name
    model: Annotated[str, Field(max_length=1000)]
    description: Text

    @model_validator(mode="after")
    def _own_digest(self) -> TargetLine:
        # Records answer for the target of their digest: one that can be chosen freely would let
        # another machine's times pass for those of this one.
        if not is_object(self.description) or digest_of(self.description) != self.digest:
            raise ValueError("the digest is not that of the description")
        return self


class WorkloadLine(Line):
    """A workload; ``function`` is text for the compiler, never read by an import."""

    kind: Literal["workload"] = "workload"
    key: Name
    name: Name
    function: Text
    description: Text


class TaskOfModel(Line):
    """One workload that a model calls; ``flops`` and ``bytes`` are of one call."""

    workload: Name
    calls: Annotated[int, Field(gt=0, le=2**53)]
    flops: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    bytes: Count


class ModelLine(Line):
    """A model with what it calls on one target (None: it was never fused for any)."""

    kind: Literal["model"] = "model"
    digest: Name
    name: Annotated[str, Field(max_length=1000)]
    target: Name | None
    tasks: list[TaskOfModel]


class RunLine(Line):
    """A tuning run: where records come from."""

    kind: Literal["run"] = "run"
    id: Name
    target: Name
    model: Name | None
    started: Name
    finished: Name | None
    settings: Text
    versions: Text
    trials_done: Count

    @model_validator(mode="after")
    def _objects(self) -> RunLine:
        return _with_objects(self, "settings", "versions")


class RecordLine(Line):
    """One measured candidate; ``round`` is 0 for a first measurement, counted in its run.

    ``candidate`` must be the digest of space, version and parameters. An infinite ``error`` is
    written as the text "Infinity".
    """

    kind: Literal["record"] = "record"
    workload: Name
    target: Name
    space: Name
    space_version: Count
    parameters: Text
    candidate: Name
    outcome: Name
    seconds: Seconds | None
    samples: Annotated[list[Seconds], Field(max_length=1_000_000)]
    error: Seconds | Literal["Infinity"] | None
    tolerance: Seconds | None
    detail: Text
    trace: Text
    versions: Text
    run: Name
    time: Name
    round: Count

    @model_validator(mode="after")
    def _own_digest(self) -> RecordLine:
        _with_objects(self, "parameters", "detail", "versions")
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is none of {', '.join(OUTCOMES)}")
        parts = [self.space, self.space_version, json.loads(self.parameters)]
        if digest_of(json.dumps(parts)) != self.candidate:
            raise ValueError("the candidate is not the digest of its space and parameters")
        return self


AnyLine = Annotated[
    Header | TargetLine | WorkloadLine | ModelLine | RunLine | RecordLine,
    Field(discriminator="kind"),
]
parser: TypeAdapter[Any] = TypeAdapter(AnyLine)


def digest_of(text: str) -> str:
    """The digest that targets and candidates go by, of a value given as JSON text.

    The same as ``search_spaces.task.digest_of`` of that value, which this package cannot import.
    """
    canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _with_objects(line: LineType, *names: str) -> LineType:
    for name in names:
        if not is_object(getattr(line, name)):
            raise ValueError(f"{name} is not the JSON text of an object")
    return line
