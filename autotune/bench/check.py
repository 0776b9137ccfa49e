"""The gate: an artifact beside the one that its baseline was written of."""

from __future__ import annotations

import datetime
import math
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.bench.baseline import (
    Baseline,
    check_copy,
    check_machine,
    copy_beside,
    described,
    figures_of,
    machine_of,
    read_baseline,
)
from autotune.bench.fresh import measuring
from autotune.bench.regression import PROCESSES, Finding, Thresholds, findings, times_of
from autotune.bench.statistics import latency
from autotune.errors import ArtifactError, InputError, ModelError
from autotune.runtime import MANIFEST, WEIGHTS, read_manifest, weights_beside

ROUNDS = 10
"""Turns of each artifact in one process."""

MEMORY_PROCESSES = 3
"""Fresh processes in which the memory of each is looked at."""

SECONDS = 30.0

Status = Callable[[str], None]


@dataclass(frozen=True)
class CheckResult:
    """The figures beside the baseline's.

    ``machine`` is how many times as long the baseline's artifact takes now as when the baseline was
    written; it has no part in the verdict. ``notes`` are what is worth knowing.
    """

    model: str
    threads: int
    cpu: str
    findings: tuple[Finding, ...]
    machine: float
    notes: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[str, ...]:
        """The figures that are worse than they may be."""
        return tuple(found.figure for found in self.findings if found.worse)


def check(
    artifact: str | Path,
    baseline: str | Path,
    against: str | Path | None = None,
    limits: Thresholds | None = None,
    seconds: float = SECONDS,
    status: Status | None = None,
) -> CheckResult:
    """Compare ``artifact`` with the one that the file ``baseline`` was written of.

    That lies beside the file, or is named by ``against``. Both are loaded by ten fresh processes
    and timed there in turns, for about ``seconds`` together, on equal random inputs; what they
    compute is compared on each. Raises a ``UserError``: for a baseline of another machine, too.
    """
    new, path = Path(artifact), Path(baseline)
    limits = limits or Thresholds()
    _check_seconds(seconds)
    known = read_baseline(path)
    manifest, here = _looked_at(new)
    check_machine(path, known, here)
    old = Path(against) if against is not None else copy_beside(path)
    check_copy(path, known, old)
    before = read_manifest(old)
    if any(before[side] != manifest[side] for side in ("inputs", "outputs")):
        raise ModelError(
            f"{new} has other inputs or outputs than {old}: write the baseline again with --update"
        )
    tell = status or (lambda line: None)
    tell(f"timing {new} and {old}, in turns, in {PROCESSES} processes")
    taken, errors, old_calls = [], [], []
    with measuring(here.threads) as process:
        for turn in range(PROCESSES):
            both = {"old": old, "new": new}
            # What is loaded first lies elsewhere in memory, so each is first as often.
            order = list(both) if turn % 2 == 0 else list(both)[::-1]
            times, error = process.times(
                {name: both[name] for name in order}, seconds / PROCESSES, ROUNDS, seed=turn
            )
            taken.append(times_of(times["old"], times["new"]))
            old_calls += [call for calls in times["old"] for call in calls]
            errors.append(error if math.isfinite(error) else math.inf)
        tell("looking at their memory")
        peaks: tuple[list[float], list[float]] = ([], [])
        for _ in range(MEMORY_PROCESSES):
            for peak, one in zip(peaks, (old, new), strict=True):
                peak.append(process.peak(one))
    sizes = (_size(old, before), _size(new, manifest))
    notes = []
    if known.artifact.model_digest != manifest["model"]["digest"]:
        notes.append("the artifacts were compiled from different model files")
    return CheckResult(
        manifest["model"]["name"],
        here.threads,
        here.cpu,
        findings(taken, peaks, sizes, max(errors), limits),
        latency(old_calls).p50 / known.figures.p50,
        tuple(notes),
    )


def update(
    artifact: str | Path,
    baseline: str | Path,
    seconds: float = SECONDS,
    status: Status | None = None,
) -> Baseline:
    """Measure ``artifact``, copy it beside the file ``baseline`` and write that.

    Both replace what is there. Raises a ``UserError``, and then nothing was replaced.
    """
    from autotune.artifact.output import replacing as replacing_directory
    from autotune.files import replacing

    new, path = Path(artifact), Path(baseline)
    _check_seconds(seconds)
    copy = copy_beside(path)
    if copy == path or path.is_dir():
        raise InputError(f"{path} cannot be a baseline: name a file such as baseline.json")
    manifest, here = _looked_at(new)
    tell = status or (lambda line: None)
    tell(f"measuring {new} in {PROCESSES} processes")
    calls: list[float] = []
    with measuring(here.threads) as process:
        for turn in range(PROCESSES):
            times, _ = process.times({"new": new}, seconds / PROCESSES, ROUNDS, seed=turn)
            calls += [call for round_ in times["new"] for call in round_]
        peak = statistics.median(process.peak(new) for _ in range(MEMORY_PROCESSES))
    made = Baseline(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        artifact=described(new, manifest),
        machine=here,
        versions=_versions(),
        figures=figures_of(latency(calls), peak, _size(new, manifest)),
    )
    if copy.resolve() != new.resolve():
        with replacing_directory(copy) as draft:
            for name in (*manifest["files"], MANIFEST):
                shutil.copyfile(new / name, draft / name)
            if manifest.get("shared_weights"):
                shutil.copyfile(weights_beside(new), draft / WEIGHTS)
    with replacing(path) as file:
        file.write(made.text().encode())
    return made


def _looked_at(artifact: Path) -> tuple[dict[str, Any], Any]:
    """The manifest of an artifact, and this machine as what it is measured on."""
    from autotune.target import native

    manifest = read_manifest(artifact)
    try:
        threads = int(manifest["target"]["threads"])
        _size(artifact, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{artifact / MANIFEST} is damaged: compile the artifact again"
        ) from error
    return manifest, machine_of(native(threads))


def _size(artifact: Path, manifest: dict[str, Any]) -> int:
    """Bytes of an artifact's files on disk."""
    listed = sum(int(entry["bytes"]) for entry in manifest["files"].values())
    return listed + (artifact / MANIFEST).stat().st_size


def _check_seconds(seconds: float) -> None:
    if not seconds > 0:
        raise InputError(f"the time to measure must be more than nothing, not {seconds} s")


def _versions() -> dict[str, str]:
    from autotune.versions import installed

    return installed({"autotune": "autotune", "tvm": "apache-tvm", "numpy": "numpy"})
