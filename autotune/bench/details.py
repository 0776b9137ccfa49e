"""What else is asked of an engine: what its start costs, its memory, and how right it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from autotune.bench.difference import Difference, difference

if TYPE_CHECKING:
    from autotune.bench.fresh import Start
    from autotune.bench.peers import Arrays, Engine

STARTS = 3
"""Processes in which an engine is started, ..."""

ENOUGH = 10.0
"""... but no more once they took these seconds."""


@dataclass(frozen=True)
class Details:
    """Medians over ``starts`` processes, as in ``Start``; ``error`` is against the reference."""

    import_time: float
    load_time: float
    first_call: float
    peak_memory: int
    starts: int
    error: Difference | None = None


@dataclass(frozen=True)
class Reference:
    """What the original model computes: its outputs, and by whom ("float64", "onnxruntime")."""

    name: str
    outputs: Arrays


def details(
    engines: Sequence[Engine], outputs: Mapping[str, Arrays], inputs: Arrays, threads: int,
    reference: Reference | None,
) -> dict[str, Details]:  # fmt: skip
    """The details of each of ``engines`` by its name; ``outputs`` are what they computed."""
    import numpy as np

    found = {}
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, *inputs.values())
        for engine in engines:
            starts = _starts(engine, file, list(inputs), threads)
            error = None
            if reference is not None:
                error = difference(outputs[engine.name], reference.outputs)
            found[engine.name] = Details(
                median(start.imported for start in starts),
                median(start.load for start in starts),
                median(start.first for start in starts),
                round(median(start.memory for start in starts)),
                len(starts),
                error,
            )
    return found


def _starts(engine: Engine, inputs: Path, names: Sequence[str], threads: int) -> list[Start]:
    from autotune.bench.fresh import measuring  # which runs as a program, too

    found: list[Start] = []
    with measuring(threads, engine.peer) as process:
        begun = time.monotonic()
        while len(found) < STARTS and (not found or time.monotonic() - begun < ENOUGH):
            found.append(process.start(engine.source, inputs, names))
    return found


def reference_of(model: Path, inputs: Arrays) -> Reference:
    """What ``model`` computes of ``inputs``: in float64, or by its own engine where that fails.

    Raises a ``UserError`` where the model cannot be imported.
    """
    from autotune.frontends import import_model
    from autotune.frontends.verify import PLAUSIBLE

    imported = import_model(model, {name: array.shape for name, array in inputs.items()})
    reference: Any = imported.reference
    outputs = reference(inputs)
    single = Reference(getattr(reference, "engine", "the original"), outputs)
    if not hasattr(reference, "double"):
        return single
    try:
        double = Reference("float64", reference.double(inputs))
    except Exception:  # onnx.reference lacks operators and fails in any way: then in float32
        return single
    # It gets some wrong, too: what the original is far from in float32 is not believed.
    believed = difference(outputs, double.outputs).relative <= PLAUSIBLE
    return double if believed else single
