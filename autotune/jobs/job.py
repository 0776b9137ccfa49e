"""What a job is: models and targets, each pair of which is tuned within a budget."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.errors import ModelError
from autotune.jobs.schema import JobTable, ModelTable, Options, TargetTable
from autotune.measure.tracker import Device
from search_spaces.task import Target

OPTIONS = tuple(Options.model_fields)


@dataclass(frozen=True)
class Pair:
    """One model on one target: what is tuned at a time.

    ``options`` are those of the model, where it has its own, and of the whole file; ``artifact`` is
    the directory that the result is written to.
    """

    model: str
    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    where: str
    target: Target
    device: Device | None
    cores: int | None
    ray: str | None
    options: Options = field(repr=False)
    artifact: Path
    calibration: Path | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.model} on {self.where}"

    def asked(self) -> dict[str, Any]:
        """JSON-able: all that the result depends on; the model and samples by their bytes."""
        given = {} if self.calibration is None else {"samples": digest_of(self.calibration)}
        return {
            **given,
            "file": digest_of(self.path),
            "input": {name: list(shape) for name, shape in sorted(self.shapes.items())},
            "digest": self.target.digest,
            **options_asked(self.options),
        }


@dataclass(frozen=True)
class Job:
    """A checked job file; paths in it are relative to its folder, here they are not."""

    path: Path
    database: Path
    output: Path
    pairs: tuple[Pair, ...]


def options_asked(options: Options) -> dict[str, Any]:
    """The budget and how to search, JSON-able."""
    return options.model_dump(include=set(OPTIONS))


def merged(table: JobTable, model: ModelTable) -> Options:
    """The options of ``model``, from the top of the file where it has none of its own."""
    own = {name: getattr(model, name) for name in OPTIONS if name in model.model_fields_set}
    return Options.model_construct(**{**options_asked(table), **own})


def model_name(model: ModelTable) -> str:
    """Its own name, or its file's."""
    return model.name or Path(model.path).stem


def names_of_pairs(table: JobTable) -> list[tuple[ModelTable, TargetTable]]:
    """Every model with every target that it is for, in the order of the file."""
    return [
        (model, target)
        for model in table.models
        for target in table.targets
        if model.targets is None or target.name in model.targets
    ]


def digest_of(path: Path) -> str:
    """A digest of all bytes of a model, weights beside an ONNX file too; "" where it has none."""
    if path.suffix.lower() == ".onnx":
        from autotune.frontends.onnx_file import read_onnx

        try:
            return read_onnx(path).digest
        except ModelError:
            return ""  # tuning it will say why
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
