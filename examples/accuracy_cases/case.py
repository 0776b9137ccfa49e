"""What a case is: a model, samples of its inputs, and a number that says how good its outputs are.

The data is in three parts that share no sample: what int8 takes its ranges from, what precision is
chosen by, and what the outcome is told of.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import MissingDependency

Arrays = Mapping[str, Any]
"""Arrays by the name of the tensor."""

Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Part:
    """Samples, and what the outputs that a model makes of them are worth.

    ``score`` is given the outputs for all samples in their order and returns a number, the greater
    the better; ``besides`` returns further ones by name, which nothing is decided by.
    """

    samples: Sequence[Arrays]
    score: Callable[[Sequence[Arrays]], float]
    besides: Callable[[Sequence[Arrays]], dict[str, float]] = lambda outputs: {}

    def evaluate(self, run: Run) -> float:
        """The score of ``run``: what ``autotune.tune`` takes as ``evaluate``."""
        return self.score([run(sample) for sample in self.samples])


@dataclass(frozen=True)
class Case:
    """A model with its data. ``shapes`` fixes the dimensions that ``model`` leaves open.

    ``metric`` is what the parts' score is called, ``budget`` how much of it may be lost where that
    is to be next to nothing.
    """

    name: str
    model: Path
    shapes: dict[str, tuple[int, ...]]
    metric: str
    budget: float
    calibration: Sequence[Arrays]
    seen: Part
    unseen: Part

    def write_calibration(self, path: Path) -> Path:
        """The calibration samples as the .npz file that ``autotune.tune`` reads."""
        import numpy as np

        names = self.calibration[0]
        arrays: dict[str, Any] = {n: np.stack([one[n] for one in self.calibration]) for n in names}
        np.savez(path, **arrays)
        return path


def original(model: Path) -> Run:
    """``model`` as ONNX Runtime computes it, in float32."""
    from autotune.bench.peers import onnxruntime_session

    return onnxruntime_session(model, 1)


def package_folder(name: str, install: str) -> Path:
    """Where the installed package ``name`` keeps its files. Raises ``MissingDependency``."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingDependency(f"the package {name} is missing: run pip install {install}")
    return Path(spec.origin).parent


def ocr_model(name: str) -> Path:
    """A model of PP-OCRv4 by its file name, as rapidocr carries it."""
    folder = package_folder("rapidocr_onnxruntime", "--no-deps rapidocr-onnxruntime")
    return folder / "models" / name


def only(outputs: Arrays) -> Any:
    """The one output of a model that has one, without the axis of a batch of one."""
    (array,) = outputs.values()
    return array[0]
