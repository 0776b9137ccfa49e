"""Baseline files: what an artifact was when it was good, with a copy of it beside the file.

Times of another day say more of the machine than of the artifact, so the copy is what is compared
with. The figures in the file are for people, and to tell how the machine has changed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autotune.counts import counted
from autotune.errors import ArtifactError, InputError, TargetError
from autotune.runtime import MANIFEST, file_digest
from search_spaces.task import Target

LIMIT = 1 << 20
"""Bytes above which a file is no baseline of ours."""

Text = Annotated[str, Field(max_length=1000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32,64}$")]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Described(_Part):
    """The artifact: the SHA-256 of its manifest, which names those of all other files."""

    digest: Digest
    model: Text
    model_digest: Text


class Machine(_Part):
    """Where it was measured: the digest of this machine as a target, and what people call it."""

    digest: Digest
    cpu: Text
    cores: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]

    def __str__(self) -> str:
        return f"{self.cpu}, {counted(self.cores, 'core')}, {counted(self.threads, 'thread')}"


class Figures(_Part):
    """Seconds of ``calls`` single inferences, bytes of memory, bytes on disk."""

    p50: Amount
    p95: Amount
    p99: Amount
    best: Amount
    calls: Annotated[int, Field(ge=1)]
    peak_memory: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=1)]


class Baseline(_Part):
    """A baseline file. ``versions`` are those of what measured, ``time`` is UTC."""

    format: Literal["autotune-baseline"] = "autotune-baseline"
    version: Literal[1] = 1
    time: Text
    artifact: Described
    machine: Machine
    versions: dict[Text, Text]
    figures: Figures

    def text(self) -> str:
        """The file."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n"


def read_baseline(path: str | Path) -> Baseline:
    """The baseline file at ``path``. Raises ``InputError`` with all that is wrong with it."""
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path} is no baseline: it is larger than any of them")
        return Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no baseline {path}: write one with --update") from None
    except OSError as error:
        raise InputError(f"the baseline {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'its text'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise InputError(
            f"{path} is not a baseline that this autotune reads ({faults}): "
            "write it again with --update"
        ) from error


def copy_beside(path: str | Path) -> Path:
    """Where the copy of the artifact lies: ``baseline.json`` has ``baseline.artifact``."""
    return Path(path).with_suffix(".artifact")


def described(artifact: Path, manifest: dict[str, Any]) -> Described:
    """What a baseline says of an artifact whose manifest was read."""
    model = manifest["model"]
    return Described(
        digest=file_digest(artifact / MANIFEST), model=model["name"], model_digest=model["digest"]
    )


def machine_of(target: Target) -> Machine:
    """What a baseline says of a machine."""
    return Machine(
        digest=target.digest, cpu=target.model, cores=target.cores, threads=target.threads
    )


def check_machine(path: Path, baseline: Baseline, here: Machine) -> None:
    """Raise ``TargetError`` where the baseline was written elsewhere."""
    there = baseline.machine
    if there.threads != here.threads:
        raise TargetError(
            f"{path} is of an artifact for {counted(there.threads, 'thread')} and this one is for "
            f"{here.threads}: compile it with --threads {there.threads}, or write the baseline "
            "again with --update"
        )
    if there.digest != here.digest:
        raise TargetError(
            f"{path} was written on another machine ({there}; this one is {here}, and instruction "
            "sets and caches count too): write a baseline on this machine with --update"
        )


def check_copy(path: Path, baseline: Baseline, artifact: Path) -> None:
    """Raise ``ArtifactError`` where ``artifact`` is not what the baseline was written of."""
    manifest = artifact / MANIFEST
    if not manifest.is_file():
        raise ArtifactError(
            f"{artifact}, the artifact that {path} was written of, is not there: name the "
            "directory that holds it with --against, or write the baseline again with --update"
        )
    if file_digest(manifest) != baseline.artifact.digest:
        raise ArtifactError(
            f"{artifact} is not the artifact that {path} was written of: name that one with "
            "--against, or write the baseline again with --update"
        )


def figures_of(latency: Any, peak: float, size: int) -> Figures:
    """Figures for the file from a ``Latency``, and bytes."""
    values = asdict(latency)
    return Figures(calls=values.pop("count"), peak_memory=round(peak), size=size, **values)
