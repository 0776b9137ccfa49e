"""Lock files: the schedules of one model for one target, as text to be kept beside the model.

JSON, in a fixed order and with one instruction of a trace a line, so that two of them compare well.
Nothing in it is executed: traces are data for TVM, checked against the function they are for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autotune.artifact.manifest import ChosenSchedule
from autotune.errors import InputError
from autotune.graph.model import FusedModel

LIMIT = 256 << 20
"""Bytes above which a file is no lock file of ours."""

Name = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LockedModel(_Part):
    """The model that a lock file was made for; schedules fit the workloads of any other as well."""

    name: Name
    digest: Name


class LockedTask(_Part):
    """The schedule of one workload. ``trace`` are pieces of one text, to be joined."""

    workload: Name
    name: Name
    space: Name
    version: int
    parameters: dict[str, bool | int | float | str]
    candidate: Name
    run: Name
    time: Name
    seconds: float | None
    trace: list[str]

    @property
    def chosen(self) -> ChosenSchedule:
        """The same, for the build."""
        values = self.model_dump(exclude={"workload", "name"})
        return ChosenSchedule(**values | {"trace": "".join(self.trace)})


class LockedSpace(_Part):
    """What was chosen in a graph space."""

    version: int
    parameters: dict[str, bool | int | float | str]
    accuracy: dict[str, bool | int | float | str] = {}


class Lock(_Part):
    """A lock file. ``target`` has the fields of ``Target``; ``versions`` are of who wrote it.

    ``spaces`` are the choices for the graph, by graph space.
    """

    format: Literal["autotune-lock"] = "autotune-lock"
    version: Literal[1] = 1
    model: LockedModel
    target: dict[str, Any]
    versions: dict[str, str]
    spaces: dict[Name, LockedSpace] = {}
    tasks: list[LockedTask]

    @property
    def graph(self) -> dict[str, dict[str, Any]]:
        """The choices for the graph, as it takes them."""
        return {
            name: space.model_dump(exclude=None if space.accuracy else {"accuracy"})
            for name, space in self.spaces.items()
        }

    @property
    def schedules(self) -> dict[str, ChosenSchedule]:
        """The schedules by workload key."""
        return {task.workload: task.chosen for task in self.tasks}

    def text(self) -> str:
        """The file, the same bytes for equal schedules."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n"


def lock_of(
    fused: FusedModel, schedules: Mapping[str, ChosenSchedule], versions: Mapping[str, str]
) -> Lock:
    """The lock file of ``fused``: its tasks in the order of the model, those with a schedule."""
    tasks = []
    for task in fused.tasks:
        chosen = schedules.get(task.workload.key)
        if chosen is None:
            continue
        values = asdict(chosen) | {"parameters": dict(sorted(chosen.parameters.items()))}
        values["trace"] = _pieces(chosen.trace)
        tasks.append(LockedTask(workload=task.workload.key, name=task.workload.name, **values))
    return Lock(
        model=LockedModel(name=fused.name, digest=fused.digest),
        target={**asdict(fused.target), "features": list(fused.target.features)},
        versions=dict(versions),
        spaces={n: LockedSpace(**told) for n, told in fused.choices.get("spaces", {}).items()},
        tasks=tasks,
    )


def read_lock(path: str | Path) -> Lock:
    """The lock file at ``path``. Raises ``InputError`` with what is wrong with it."""
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path} is no lock file: it is larger than any of them")
        return Lock.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"the lock file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise InputError(
            f"{path} is not a lock file that this autotune reads ({where}: {first['msg']}): "
            "write it again with autotune lock"
        ) from error


def _pieces(trace: str) -> list[str]:
    """``trace``, which is JSON without line breaks, in pieces of one instruction each."""
    return trace.replace("]], [", "]],\n [").split("\n")
