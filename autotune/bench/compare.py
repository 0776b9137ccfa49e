"""Compare an artifact with other engines, and with other artifacts: how fast, and how different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.bench.details import Details, details, reference_of
from autotune.bench.difference import Difference, difference
from autotune.bench.interleaved import interleave
from autotune.bench.peers import Engine, engine_of, peer_named, start
from autotune.bench.statistics import Latency, Ratio, Throughput, latency, ratio, throughput
from autotune.bench.throughput import calling, rates
from autotune.errors import InputError, ModelError
from autotune.frontends.base import TensorSpec
from autotune.frontends.sampling import random_inputs
from autotune.precision.told import told

if TYPE_CHECKING:
    from autotune.runtime import Model

OURS = "autotune"


@dataclass(frozen=True)
class EngineResult:
    """One engine: latency in seconds, and against ours: ``ratio`` above 1 means ours is faster.

    ``throughput`` and ``details`` are there where they were asked for.
    """

    name: str
    version: str
    latency: Latency
    ratio: Ratio | None = None
    difference: Difference | None = None
    throughput: Throughput | None = None
    details: Details | None = None


@dataclass(frozen=True)
class BenchResult:
    """All engines, ours first. ``reference`` is what the errors in their details are against.

    ``batch`` is the leading extent of the first input, 1 where it has none. ``precision`` says what
    of ours is shorter than float32 and what that loses, "" where nothing is.
    """

    model: str
    threads: int
    cpu: str
    engines: tuple[EngineResult, ...]
    artifact: str = ""
    batch: int = 1
    reference: str = ""
    precision: str = ""

    def samples_per_second(self, engine: EngineResult) -> float:
        """What one caller of an engine of this result gets at its median latency."""
        return self.batch / engine.latency.p50


def bench(
    artifact: str | Path,
    against: Sequence[str] = ("onnxruntime",),
    model: str | Path | None = None,
    threads: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    seconds: float = 10.0,
    rounds: int = 20,
    seed: int = 0,
    callers: int = 0,
    detailed: bool = False,
) -> BenchResult:
    """Time the artifact directory ``artifact`` and the engines ``against``, interleaved.

    An entry of ``against`` is the name of a peer, which reads the original file ``model``
    ("onnxruntime", "openvino" an ONNX file; "torch", "torch.compile" a program of torch.export), or
    another artifact directory of the same model. All get the same
    ``inputs`` (random ones from ``seed`` if not given) and ``threads`` (the artifact's own if not
    given). What is timed is a whole call, from numpy arrays to numpy arrays.

    With ``callers``, as many at the same time are timed after that, for about as long again: each
    has a thread and an instance of its own. With ``detailed`` every engine is started anew in
    processes of its own, and where ``model`` is given what it computes is compared with what that
    does in float64. Raises a ``UserError``.
    """
    from autotune.runtime import load

    if not against:
        raise InputError("there is nothing to compare with: name an engine, such as onnxruntime")
    if callers < 0:
        raise InputError(f"there cannot be {callers} callers: give 1 or more")
    ours = load(artifact, threads)
    given = dict(inputs) if inputs is not None else random_inputs(specs_of(ours), seed)
    ours(given)  # says what is wrong with the inputs before anything else does
    engines = [engine_of(OURS, ours, given, Path(artifact))]
    for name in against:
        engines.append(_engine(name, ours, model, given))
    names = [engine.name for engine in engines]
    if len(set(names)) < len(names):
        raise InputError(f"--against names an engine twice: {', '.join(names[1:])}")
    expected = {engine.name: engine.run() for engine in engines}
    times = interleave({e.name: e.run for e in engines}, seconds=seconds, rounds=rounds)
    results = {}
    for engine in engines:
        taken = latency([s for turn in times[engine.name] for s in turn])
        result = EngineResult(engine.name, engine.version, taken)
        if engine.name != OURS:
            result = replace(
                result,
                ratio=ratio(times[OURS], times[engine.name]),
                difference=difference(expected[OURS], expected[engine.name]),
            )
        results[engine.name] = result
    if callers:
        found = _throughputs(engines, given, ours.threads, callers, seconds, rounds)
        results = {name: replace(results[name], throughput=found[name]) for name in results}
    reference = None
    if detailed:
        reference = reference_of(Path(model), given) if model is not None else None
        more = details(engines, expected, given, ours.threads, reference)
        results = {name: replace(results[name], details=more[name]) for name in results}
    return BenchResult(
        ours.manifest["model"]["name"],
        ours.threads,
        ours.manifest["target"]["model"],
        tuple(results.values()),
        str(artifact),
        (*ours.inputs[0].shape, 1)[0] if ours.inputs else 1,
        reference.name if reference else "",
        told(ours.manifest["graph"].get("spaces")),
    )


def _throughputs(
    engines: Sequence[Engine],
    inputs: Mapping[str, Any],
    threads: int,
    callers: int,
    seconds: float,
    rounds: int,
) -> dict[str, Throughput]:
    """Of each engine by its name, with as many instances of it as there are callers."""
    runs = {
        engine.name: [
            engine.run,
            *(start(engine.peer, engine.source, inputs, threads).run for _ in range(callers - 1)),
        ]
        for engine in engines
    }
    with calling(runs) as called:
        turns = {name: each.turn for name, each in called.items()}
        found = rates(turns, seconds=seconds, rounds=rounds)
    return {name: throughput(found[name], callers, found[OURS]) for name in found}


def specs_of(model: Model) -> tuple[TensorSpec, ...]:
    """The inputs of a loaded artifact, with what its manifest says of their values."""
    specs = (TensorSpec(**entry) for entry in model.manifest["inputs"])
    return tuple(replace(spec, shape=tuple(spec.shape)) for spec in specs)


def _engine(name: str, ours: Model, model: str | Path | None, inputs: Mapping[str, Any]) -> Engine:
    if Path(name).is_dir():
        from autotune.runtime import load

        other = load(name, ours.threads)
        if other.manifest["model"]["digest"] != ours.manifest["model"]["digest"]:
            raise ModelError(
                f"{name} was compiled from another model, or for other shapes: compare artifacts "
                "that were compiled alike"
            )
        return engine_of(name, other, inputs, Path(name))
    peer = peer_named(name)
    if model is None:
        raise InputError(f"{name} needs the original model: name its file with --model")
    peer.check(Path(model))
    _check_model(Path(model), ours)
    return peer.engine(Path(model), inputs, ours.threads)


def _check_model(path: Path, ours: Model) -> None:
    from autotune.frontends import digest_of

    shapes = {spec.name: spec.shape for spec in ours.inputs}
    if digest_of(path, shapes) != ours.manifest["model"]["digest"]:
        raise ModelError(
            f"{path} is not the model that the artifact was compiled from "
            f"({ours.manifest['model']['name']}): name that one with --model"
        )
