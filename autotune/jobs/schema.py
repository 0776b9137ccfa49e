"""What a job file may say. Its keys are named as the options of ``autotune tune``."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autotune.durations import seconds_of
from autotune.errors import InputError
from autotune.jobs.toml import Document, Location

NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Names of models and targets are names of folders, too."""


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('should be a duration such as "90s", "10m" or "1h30m"')
    try:
        seconds = seconds_of(value) if isinstance(value, str) else float(value)
    except InputError as error:
        raise ValueError(str(error)) from None
    if not seconds > 0:
        raise ValueError("should be more than nothing")
    return seconds


def _until(value: Any) -> Any:
    from autotune.bench.peers import peer_named
    from autotune.goal import Goal

    _parsed(Goal.parse, value)
    if isinstance(value, str) and (engine := Goal.parse(value).engine):
        missing = peer_named(engine).missing
        if missing:
            raise ValueError(missing)
    return value


def _sampler(value: Any) -> Any:
    from autotune.search.samplers import sampler_choice

    return _parsed(sampler_choice, value)


def _budget(value: Any) -> Any:
    from autotune.precision.budget import Budget

    return _parsed(Budget.parse, value)


def _parsed(parse: Any, value: Any) -> Any:
    if isinstance(value, str):
        try:
            parse(value)
        except InputError as error:
            raise ValueError(str(error)) from None
    return value


class Table(BaseModel):
    """A table of the file: its keys have dashes, and no others than these are taken."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Options(Table):
    """How to search. At the top of the file for all models, in a model's table for it alone."""

    trials: Annotated[int, Field(ge=1)] | None = None
    time: Annotated[float, BeforeValidator(_seconds)] | None = None
    until: Annotated[str, BeforeValidator(_until)] | None = None
    sampler: Annotated[str, BeforeValidator(_sampler)] = "cost-model"
    seed: int = 0
    graph: bool = False
    accuracy_budget: Annotated[str | float, BeforeValidator(_budget)] | None = None
    calibration: str | None = None
    eval: str | None = None
    precisions: list[Literal["bfloat16", "bfloat16x3", "int8"]] = []
    cache: Literal["cold", "hot"] = "cold"
    transfer: bool = True


class ModelTable(Options):
    """A model, by default under its file's name and for every target."""

    path: str
    name: Annotated[str, Field(pattern=NAME)] | None = None
    input: dict[str, list[Annotated[int, Field(ge=0)]]] = {}
    targets: Annotated[list[str], Field(min_length=1)] | None = None


class TargetTable(Table):
    """A target: this machine, another by name or file, a device over the network, or the hosts of
    a Ray cluster."""

    name: Annotated[str, Field(pattern=NAME)]
    target: str = "native"
    threads: Annotated[int, Field(ge=1)] | None = None
    cores: Annotated[int, Field(ge=1)] | None = None
    ray: str | None = None
    rpc: str | None = None
    key: str = ""
    rpc_wait: Annotated[float, Field(ge=1, strict=False)] = 60.0
    rpc_cc: str | None = None


class JobTable(Options):
    """The whole file."""

    db: str = "tuning.db"
    output: str = "tuned"
    models: Annotated[list[ModelTable], Field(min_length=1)]
    targets: Annotated[list[TargetTable], Field(min_length=1)] = [TargetTable(name="native")]


def validated(document: Document) -> JobTable | None:
    """The file as a ``JobTable``; None where that is not possible, with the faults noted."""
    broken = bool(document.faults)
    try:
        return JobTable.model_validate(document.values)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            if not (broken and fault["type"] == "missing"):  # perhaps in a line that is no TOML
                document.fault(tuple(fault["loc"]), _sentence(fault))
    return None


def _sentence(fault: Any) -> str:
    where: Location = tuple(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return "there is no such key" + meant(str(where[-1]), _keys_beside(where))
    if fault["type"] == "missing":
        return "it is missing"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "string_pattern_mismatch":
        return f"{fault['input']!r} is no name: use letters, digits, dots, dashes and underscores"
    said = fault["msg"].removeprefix("Input ")
    return f"it {said}, not {fault['input']!r}" if said != fault["msg"] else said


def _keys_beside(where: Location) -> list[str]:
    """The keys that the table of ``where`` may have."""
    tables: dict[str, type[Table]] = {"models": ModelTable, "targets": TargetTable}
    table = tables.get(str(where[0]), JobTable) if len(where) > 1 else JobTable
    return [field.alias or name for name, field in table.model_fields.items()]


def meant(name: str, known: list[str]) -> str:
    """What ``name`` may have been meant to be, as the end of a sentence."""
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1)
    return f": did you mean {close[0]}?" if close else f" (there are {', '.join(known)})"
