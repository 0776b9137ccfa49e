"""Targets: this machine, a name, or a JSON file, as ``search_spaces.task.Target``."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from autotune.counts import counted
from autotune.errors import TargetError
from autotune.instructions import (
    LEVELS,
    features_of_level,
    level_of,
    machine,
    native_features,
)
from search_spaces.task import Target

LEVEL_NAMES = ("x86-64", *(name for name, _ in LEVELS))
NAMES = ("native", *LEVEL_NAMES, "aarch64")


def resolve(text: str, threads: int | None = None) -> Target:
    """The target that ``text`` means: "native", a name, or the path of a JSON file.

    ``threads`` overrides how many threads one inference uses. Raises ``TargetError``.
    """
    _check_threads(threads)
    if text == "native":
        return native(threads)
    if text.endswith(".json") or os.sep in text and Path(text).exists():
        target = from_file(Path(text))
        return target if threads is None else replace(target, threads=threads)
    return named(text, threads)


def native(threads: int | None = None) -> Target:
    """This CPU: instruction sets that really run, caches, and the cores we may use.

    ``threads`` defaults to the number of physical cores that the scheduler and the control group
    leave to this process. TVM is not imported.
    """
    _check_threads(threads)
    cores = available_cores()
    features = native_features()
    caches = cache_sizes()
    return Target(
        kind="llvm",
        triple=f"{machine()}-linux-gnu",
        cpu=level_of(features) if machine() == "x86_64" else "generic",
        features=features,
        model=cpu_model(),
        cores=cores,
        threads=threads or cores,
        l1=caches.get(1, 0),
        l2=caches.get(2, 0),
        l3=caches.get(3, 0),
    )


def named(name: str, threads: int | None = None) -> Target:
    """A target by name: an x86-64 level, "aarch64", or a CPU among TVM's target tags.

    Nothing is known of its caches. Raises ``TargetError``, listing the names that exist.
    """
    _check_threads(threads)
    if name == "native":
        return native(threads)
    if name in LEVEL_NAMES:
        count = threads or available_cores()
        features = features_of_level(name)
        return Target("llvm", "x86_64-linux-gnu", name, features, name, count, count)
    if name == "aarch64":
        count = threads or available_cores()
        return Target("llvm", "aarch64-linux-gnu", "generic", ("+neon",), name, count, count)
    tags = cpu_tags()
    if name not in tags:
        raise TargetError(
            f"there is no target {name!r}: use one of {', '.join((*NAMES, *sorted(tags)))}, "
            "or the path of a JSON file"
        )
    spec = tags[name]
    cores = int(spec.get("num-cores") or threads or available_cores())
    return Target(
        kind="llvm",
        triple=spec.get("mtriple", "x86_64-linux-gnu"),
        cpu=spec.get("mcpu", ""),
        features=tuple(str(feature) for feature in spec.get("mattr", ())),
        model=name,
        cores=cores,
        threads=threads or cores,
    )


@functools.cache
def cpu_tags() -> dict[str, dict[str, Any]]:
    """TVM's target tags that are CPUs, with what TVM says of each. Imports TVM."""
    from tvm.target import list_tags

    tags = {str(name): json.loads(str(target)) for name, target in (list_tags() or {}).items()}
    return {name: spec for name, spec in sorted(tags.items()) if spec.get("kind") == "llvm"}


def from_file(path: Path) -> Target:
    """The target that a JSON file describes by the fields of ``Target``.

    Raises ``TargetError`` with every fault of the file in one sentence.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise TargetError(f"the target file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TargetError(f"the target file {path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise TargetError(f"the target file {path} must hold one JSON object")
    return from_fields(content, f"the target file {path}")


def from_fields(content: Mapping[str, Any], where: str) -> Target:
    """The target of these fields, as JSON has them; ``where`` they are from is told in errors.

    Raises ``TargetError`` with every fault in one sentence.
    """
    known = {field.name: field for field in fields(Target)}
    faults = [
        f"{name} is no field (there are {', '.join(known)})"
        for name in content
        if name not in known
    ]
    for name, field in known.items():
        if name in content:
            faults += _field_faults(name, str(field.type), content[name])
        elif field.default is MISSING:
            faults.append(f"{name} is missing")
    if faults:
        raise TargetError(f"{where} has faults: {'; '.join(faults)}")
    values = dict(content, features=tuple(content["features"]))
    return Target(**values)


def _field_faults(name: str, kind: str, value: Any) -> list[str]:
    if kind == "int":
        least = 1 if name in ("cores", "threads") else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            return [f"{name} must be a whole number from {least} on, not {json.dumps(value)}"]
    elif kind == "str":
        if not isinstance(value, str):
            return [f"{name} must be a text, not {json.dumps(value)}"]
        if name == "kind" and value != "llvm":
            return [f'kind must be "llvm", not {json.dumps(value)}']
    elif not isinstance(value, list) or not all(
        isinstance(item, str) and item[:1] in ("+", "-") for item in value
    ):
        return [f'{name} must be a list of texts such as "+avx2", not {json.dumps(value)}']
    return []


def check_measurable(target: Target) -> None:
    """Raise ``TargetError`` where code for ``target`` cannot run, or be timed fairly, here."""
    if target.device:
        return  # measured on another machine, which answers for itself
    architecture = target.triple.split("-")[0]
    if target.kind != "llvm" or architecture != machine():
        raise TargetError(
            f"{target.model} is {target.kind} on {architecture}, this machine is {machine()}: "
            "compile for it without measuring, or measure on a device of that kind"
        )
    needed = {*target.features, *features_of_level(target.cpu)}
    if target.cpu and target.cpu not in (*LEVEL_NAMES, "generic"):
        needed |= _features_of_cpu(target)
    have = set(native_features())
    lacking = sorted(f[1:] for f in needed if f.startswith("+") and f not in have and _probed(f))
    if lacking:
        raise TargetError(
            f"this machine lacks {', '.join(lacking)}, which {target.model} needs: "
            "measure on a machine that has it, or tune for --target native"
        )
    logical = len(usable_cpus())
    if target.threads > logical:
        raise TargetError(
            f"{counted(target.threads, 'thread')} cannot be measured on {counted(logical, 'CPU')}: "
            f"use --threads {logical}"
        )


def _probed(feature: str) -> bool:
    """Whether we know how to tell that a CPU has ``feature``; other attributes are only tuning."""
    from autotune.instructions import AARCH64, X86

    names = AARCH64.values() if machine() == "aarch64" else [llvm for llvm, _ in X86.values()]
    return feature[1:] in names


def _features_of_cpu(target: Target) -> set[str]:
    """The features that LLVM gives to the CPU named by ``target``; imports TVM."""
    from tvm.target import Target as TvmTarget
    from tvm.target.codegen import llvm_get_cpu_features

    try:
        made = TvmTarget(target.tvm())
        return {f"+{name}" for name in llvm_get_cpu_features(made)}
    except (ValueError, RuntimeError) as error:
        raise TargetError(f"LLVM refuses the target {target.model}: {error}") from None


def usable_cpus() -> tuple[int, ...]:
    """The logical CPUs this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_cores() -> int:
    """Physical cores we may use: those of ``usable_cpus``, within the control group's quota."""
    seen = set()
    for cpu in usable_cpus():
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            package = (topology / "physical_package_id").read_text().strip()
            core = (topology / "core_id").read_text().strip()
        except OSError:
            package, core = "?", str(cpu)
        seen.add((package, core))
    quota = cpu_quota()
    return max(1, len(seen) if quota is None else min(len(seen), math.floor(quota)))


def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")
) -> float | None:
    """CPUs' worth of time that the control groups leave us; None where there is no limit."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root if not controllers else root / "cpu"
        folder = base / group.lstrip("/")
        # The limit of every group above holds too.
        for place in (folder, *folder.parents):
            if not place.is_relative_to(base):
                break
            limits += _quota_at(place)
    return min(limits, default=None)


def _quota_at(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return []
    if quota in ("max", "-1"):
        return []
    return [int(quota) / int(period)]


def cache_sizes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[int, int]:
    """Bytes of the data or unified cache at each level; empty where the system does not tell."""
    sizes: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            text = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and text:
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
            sizes[level] = int(text.rstrip("KMG")) * unit
    return sizes


def cpu_model() -> str:
    """What the system calls the CPU; never the host's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return machine()
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" in found:
        return " ".join(found["model name"].split())
    if "CPU part" in found:
        return f"ARM implementer {found.get('CPU implementer', '?')} part {found['CPU part']}"
    return machine()


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise TargetError(f"the number of threads must be 1 or more, not {threads}")
