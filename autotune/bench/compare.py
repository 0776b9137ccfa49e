"""Compare an artifact with other engines, and with other artifacts: how fast, and how different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.bench.interleaved import interleave
from autotune.bench.peers import Engine, peer_named
from autotune.bench.statistics import Latency, Ratio, latency, ratio
from autotune.errors import InputError, ModelError
from autotune.frontends.base import TensorSpec
from autotune.frontends.sampling import random_inputs

if TYPE_CHECKING:
    from autotune.runtime import Model

OURS = "autotune"


@dataclass(frozen=True)
class Difference:
    """The largest difference between two engines' outputs.

    ``absolute`` is of one element; ``relative`` is that over the largest magnitude in that output.
    """

    output: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class EngineResult:
    """One engine: latency in seconds, and against ours: ``ratio`` above 1 means ours is faster."""

    name: str
    version: str
    latency: Latency
    ratio: Ratio | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class BenchResult:
    """All engines, ours first."""

    model: str
    threads: int
    cpu: str
    engines: tuple[EngineResult, ...]


def bench(
    artifact: str | Path,
    against: Sequence[str] = ("onnxruntime",),
    model: str | Path | None = None,
    threads: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    seconds: float = 10.0,
    rounds: int = 20,
    seed: int = 0,
) -> BenchResult:
    """Time the artifact directory ``artifact`` and the engines ``against``, interleaved.

    An entry of ``against`` is the name of a peer, which reads the original file ``model``
    ("onnxruntime", "openvino" an ONNX file; "torch", "torch.compile" a program of torch.export), or
    another artifact directory of the same model. All get the same
    ``inputs`` (random ones from ``seed`` if not given) and ``threads`` (the artifact's own if not
    given). What is timed is a whole call, from numpy arrays to numpy arrays. Raises a
    ``UserError``.
    """
    from autotune.runtime import load

    if not against:
        raise InputError("there is nothing to compare with: name an engine, such as onnxruntime")
    ours = load(artifact, threads)
    given = dict(inputs) if inputs is not None else random_inputs(specs_of(ours), seed)
    ours(given)  # says what is wrong with the inputs before anything else does
    engines = [_engine_of(OURS, ours, given)]
    for name in against:
        engines.append(_engine(name, ours, model, given))
    names = [engine.name for engine in engines]
    if len(set(names)) < len(names):
        raise InputError(f"--against names an engine twice: {', '.join(names[1:])}")
    expected = {engine.name: engine.run() for engine in engines}
    times = interleave({e.name: e.run for e in engines}, seconds=seconds, rounds=rounds)
    results = []
    for engine in engines:
        taken = latency([s for turn in times[engine.name] for s in turn])
        result = EngineResult(engine.name, engine.version, taken)
        if engine.name != OURS:
            result = replace(
                result,
                ratio=ratio(times[OURS], times[engine.name]),
                difference=difference(expected[OURS], expected[engine.name]),
            )
        results.append(result)
    manifest = ours.manifest
    return BenchResult(
        manifest["model"]["name"], ours.threads, manifest["target"]["model"], tuple(results)
    )


def specs_of(model: Model) -> tuple[TensorSpec, ...]:
    """The inputs of a loaded artifact, with what its manifest says of their values."""
    specs = (TensorSpec(**entry) for entry in model.manifest["inputs"])
    return tuple(replace(spec, shape=tuple(spec.shape)) for spec in specs)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Difference:
    """The output in which ``ours`` differs most from ``theirs``, for its size."""
    import numpy as np

    worst = Difference("", 0.0, -1.0)
    for name, value in ours.items():
        if name not in theirs or np.shape(theirs[name]) != np.shape(value):
            raise ModelError(f"the engines do not agree on output {name}: compare the same model")
        wide = np.asarray(theirs[name], np.float64)
        apart = np.abs(np.asarray(value, np.float64) - wide)
        absolute = float(apart.max()) if apart.size else 0.0
        scale = float(np.abs(wide).max()) if wide.size else 0.0
        relative = absolute / scale if scale else absolute
        if not relative <= worst.relative:  # NaN counts as worst
            worst = Difference(name, absolute, relative)
    return worst


def _engine(name: str, ours: Model, model: str | Path | None, inputs: Mapping[str, Any]) -> Engine:
    if Path(name).is_dir():
        from autotune.runtime import load

        other = load(name, ours.threads)
        if other.manifest["model"]["digest"] != ours.manifest["model"]["digest"]:
            raise ModelError(f"{name} was compiled from another model: compare artifacts of one")
        return _engine_of(name, other, inputs)
    peer = peer_named(name)
    if model is None:
        raise InputError(f"{name} needs the original model: name its file with --model")
    peer.check(Path(model))
    _check_model(Path(model), ours)
    return peer.engine(Path(model), inputs, ours.threads)


def _check_model(path: Path, ours: Model) -> None:
    shapes = {spec.name: spec.shape for spec in ours.inputs}
    if _digest(path, shapes) != ours.manifest["model"]["digest"]:
        raise ModelError(
            f"{path} is not the model that the artifact was compiled from "
            f"({ours.manifest['model']['name']}): name that one with --model"
        )


def _digest(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    if path.suffix.lower() == ".pt2":
        from autotune.frontends.torch_export import digest_of_file

        return digest_of_file(path, shapes)
    from autotune.frontends.onnx_file import digest_of_import, read_onnx

    return digest_of_import(read_onnx(path), shapes)


def _engine_of(name: str, model: Model, inputs: Mapping[str, Any]) -> Engine:
    return Engine(name, str(model.manifest["versions"].get("autotune", "")), lambda: model(inputs))
