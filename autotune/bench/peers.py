"""Engines to compare with. Each is given the original model, the same inputs, the same threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.bench import torch_peers
from autotune.errors import InputError, MissingDependency, ModelError, UserError

if TYPE_CHECKING:
    import numpy as np

    from autotune.runtime import Model

    Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Engine:
    """A model ready to run on fixed inputs: each call of ``run`` is one inference.

    ``source`` is what it was loaded from: an artifact directory, or the file that the peer called
    ``peer`` reads. With those ``start`` makes another one of it.
    """

    name: str
    version: str
    run: Callable[[], Arrays] = field(repr=False)
    source: Path
    peer: str = ""


@dataclass(frozen=True)
class Peer:
    """An engine that may be installed: its module, its distribution, and how to start it.

    ``start`` takes the model file, the inputs by name and the number of threads, and returns what
    runs one inference. ``torch`` tells that the file is a program of torch.export and not ONNX.
    """

    name: str
    module: str
    package: str
    install: str
    start: Callable[[Path, Mapping[str, Any], int], Callable[[], Arrays]] = field(repr=False)
    torch: bool = False

    @property
    def missing(self) -> str:
        """What to do to have it, in one sentence; "" where it is installed."""
        if importlib.util.find_spec(self.module) is not None:
            return ""
        return f"{self.name} is not installed: run pip install {self.install}"

    def check(self, model: Path) -> None:
        """Raise ``ModelError`` where ``model`` is a file of another kind."""
        exported = model.suffix.lower() == ".pt2"
        if self.torch and not exported:
            raise ModelError(
                f"{self.name} runs programs of torch.export (.pt2) and {model} is none: leave it "
                "out of --against"
            )
        if exported and not self.torch:
            raise ModelError(
                f"{self.name} reads ONNX files and {model} is a program of torch.export: compare "
                "with torch or torch.compile"
            )

    def engine(self, model: Path, inputs: Mapping[str, Any], threads: int) -> Engine:
        """Load ``model``. Raises ``MissingDependency``, or ``ModelError`` where it refuses it."""
        self.check(model)
        if self.missing:
            raise MissingDependency(self.missing)
        try:
            run = self.start(model, inputs, threads)
        except UserError:
            raise
        except Exception as error:  # each engine has errors of its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"{self.name} cannot load {model}: leave it out of --against ({lines[0]})"
            ) from error
        return Engine(self.name, version(self.package), run, model, self.name)


def onnxruntime_session(model: Path, threads: int) -> Callable[[Mapping[str, Any]], Arrays]:
    """What runs ``model`` by ONNX Runtime; raises its errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def openvino_request(read: Any, threads: int, hint: str) -> Callable[[Mapping[str, Any]], Arrays]:
    """What runs ``read``, a model of OpenVINO, in the precision ``hint``; raises its errors.

    The results are overwritten by the next ones.
    """
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": hint,
    }
    compiled = openvino.Core().compile_model(read, "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, Any]) -> Arrays:
        results = request.infer(inputs)
        return {port.get_any_name(): results[port] for port in compiled.outputs}

    return run


def _onnxruntime(model: Path, inputs: Mapping[str, Any], threads: int) -> Callable[[], Arrays]:
    run, feed = onnxruntime_session(model, threads), dict(inputs)
    return lambda: run(feed)


def _openvino(model: Path, inputs: Mapping[str, Any], threads: int) -> Callable[[], Arrays]:
    import openvino

    read = openvino.Core().read_model(str(model))
    read.reshape({name: list(array.shape) for name, array in inputs.items()})
    # What is compared computes in float32, so this must not choose bf16 by itself.
    run, feed = openvino_request(read, threads, "f32"), dict(inputs)
    return lambda: run(feed)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "onnxruntime", "onnxruntime", "onnxruntime", _onnxruntime),
        Peer("openvino", "openvino", "openvino", "'autotune[peers]'", _openvino),
        Peer("torch", "torch", "torch", "'autotune[torch]'", torch_peers.eager, torch=True),
        Peer(
            "torch.compile", "torch", "torch", "'autotune[torch]'", torch_peers.compiled, torch=True
        ),
    )
}


def peer_named(name: str) -> Peer:
    """The peer called ``name``. Raises ``InputError``, listing those there are."""
    if name not in PEERS:
        raise InputError(f"there is no engine {name!r} to compare with: use {' or '.join(PEERS)}")
    return PEERS[name]


def start(peer: str, source: Path, inputs: Mapping[str, Any], threads: int) -> Engine:
    """Load ``source`` by the peer of that name, or as an artifact where it is "".

    Raises a ``UserError``.
    """
    if peer:
        return peer_named(peer).engine(source, inputs, threads)
    from autotune.runtime import load

    return engine_of(str(source), load(source, threads), inputs, source)


def engine_of(name: str, model: Model, inputs: Mapping[str, Any], source: Path) -> Engine:
    """An artifact that is loaded already, from ``source``, as an engine."""
    made_by = str(model.manifest["versions"].get("autotune", ""))
    return Engine(name, made_by, lambda: model(inputs), source)
