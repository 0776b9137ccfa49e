"""Compare an imported module with the original model, before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.dtypes import is_float
from autotune.errors import ModelError
from autotune.frontends.base import ImportedModel
from autotune.frontends.onnx_file import first_line
from autotune.frontends.roundings import otherwise, stepwise
from autotune.frontends.sampling import (
    extreme_inputs,
    first_inputs,
    nonzero_inputs,
    random_inputs,
)

if TYPE_CHECKING:
    import numpy as np

    from autotune.frontends.base import Arrays

    Runnable = Callable[[Arrays], dict[str, np.ndarray]]
    Build = Callable[[ImportedModel], Runnable]
    Samples = Sequence[tuple[Arrays, Arrays]]

TOLERANCE = 1e-4
"""Largest difference allowed, as a share of the largest magnitude in the output (float32)."""

HALF_TOLERANCE = 2e-2
"""The same for models that compute something in 16-bit floats."""

AMBIGUOUS = 0.25
"""How far ONNX Runtime's ways to compute a model that rounds may be apart to be any measure."""

PLAUSIBLE = 1e-2
"""How far float64 may be from float32 for both to have computed the same thing."""


@dataclass(frozen=True)
class ImportCheck:
    """How a comparison went: the largest scaled error, and what it was measured against.

    ``engine`` is "onnxruntime", "onnx.reference", or "float64" where the first comparison left a
    doubt that double precision settled.
    """

    error: float
    tolerance: float
    engine: str


class Disagreement(ModelError):
    """What was imported computes something else than the original.

    ``inputs`` shows it: with them ``ImportedModel.blame`` can tell where it begins.
    """

    def __init__(
        self,
        imported: ImportedModel,
        inputs: Arrays,
        output: str,
        engine: str,
        error: float,
        tolerance: float,
        first: str = "",
    ) -> None:
        where = f" (the first operator that does is {first})" if first else ""
        super().__init__(
            f"{imported.name} was imported but output {output} differs from {engine}'s by "
            f"{error:.2g} of its largest value, where {tolerance:.2g} is allowed{where}: it would "
            "compute something else, so it is refused; please report the model"
        )
        self.imported, self.inputs = imported, inputs
        self._said = (output, engine, error, tolerance)

    def located(self) -> Disagreement:
        """The same, with the first operator that disagrees where it can be found."""
        first = self.imported.blame(self.inputs)
        return Disagreement(self.imported, self.inputs, *self._said, first) if first else self


def verify_import(
    imported: ImportedModel,
    build: Build | None = None,
    seed: int = 0,
    samples: Samples | None = None,
) -> ImportCheck:
    """Run ``imported`` on random inputs, extremes included, and compare with its reference.

    ``build`` makes something that runs from the imported model; without it the module is compiled
    unfused and unscheduled, which is slow to run but has no part of ours in it. ``samples`` are
    what ``samples_of`` made of ``seed``, where it was asked before. Raises ``Disagreement``, naming
    the output and the error, where the two disagree.
    """
    if samples is None:
        (samples,) = samples_of(imported, seed)
    run = (build or naive_build)(imported)
    # Extremes may all but close a sigmoid, and then each engine's rounding, of 1e-7 of what it can
    # be, is a large part of what is left: there an output counts as large as on plain inputs.
    scales = {spec.name: largest(samples[0][1][spec.name]) for spec in imported.outputs}
    checks = [
        check_outputs(imported, inputs, expected, run(inputs), scales)
        for inputs, expected in samples
    ]
    return max(checks, key=lambda check: check.error / check.tolerance)


def check_outputs(
    imported: ImportedModel,
    inputs: Arrays,
    expected: Arrays,
    actual: Arrays,
    scales: Mapping[str, float] | None = None,
) -> ImportCheck:
    """Compare what was computed of ``inputs`` with what the original computed of them.

    ``scales`` holds the largest magnitudes that outputs are known to take elsewhere. Raises
    ``Disagreement``, naming the output and the error, where the two disagree.
    """
    engine = str(getattr(imported.reference, "engine", "reference"))
    scales = scales or {}
    errors = compare(imported, expected, actual, scales)
    worst = max(errors, key=lambda name: _excess(errors[name]), default="")
    if not worst:
        raise ModelError(f"{imported.name} has no outputs: there is nothing to compile")
    error, tolerance = errors[worst]
    if _excess(errors[worst]) <= 1.0:
        return ImportCheck(error, tolerance, engine)
    if getattr(imported.reference, "rounds", False):
        settled = _rounded(imported, inputs, expected, actual, scales)
    else:
        settled = _settle(imported, inputs, expected, actual, scales)
    if settled is None:
        raise Disagreement(imported, inputs, worst, engine, error, tolerance)
    return settled


def samples_of(imported: ImportedModel, *seeds: int) -> list[Samples]:
    """Those of each of ``seeds``; then the reference, which holds every weight, lets go of them.

    Raises ``ModelError`` where it accepts no inputs.
    """
    found = [_samples(imported, seed) for seed in seeds]
    release = getattr(imported.reference, "release", None)
    if release is not None:
        release()
    return found


def _samples(imported: ImportedModel, seed: int) -> Samples:
    """Inputs and what the reference makes of them: plain ones, and extremes where they are any use.

    Not every input is accepted (an integer may divide, or index), so the reference decides. A
    sample of extremes that leads to infinities or NaN is left out: where a float overflows, right
    computations differ. Raises ``ModelError`` where nothing is accepted.
    """
    samples, refused = _accepted(imported, seed)
    change = getattr(imported.reference, "evaluate", None)
    if not samples and change is not None:
        change()  # ONNX Runtime lacks some cases of operators that it knows
        samples, _ = _accepted(imported, seed)
    if not samples:
        why = first_line(refused) if refused else "no reason given"
        raise ModelError(
            f"{imported.name} cannot be compared with anything: its original fails on random "
            f"inputs ({why}); export it again"
        )
    return samples


def _accepted(
    imported: ImportedModel, seed: int
) -> tuple[list[tuple[Arrays, Arrays]], BaseException | None]:
    """The samples, and what the reference said of one that it did not accept."""
    import numpy as np

    samples: list[tuple[Arrays, Arrays]] = []
    refused: BaseException | None = None
    for draw in (random_inputs, extreme_inputs, first_inputs, nonzero_inputs):
        if draw in (first_inputs, nonzero_inputs) and samples:
            break
        inputs = draw(imported.inputs, seed) | dict(imported.samples)
        try:
            expected = imported.reference(inputs)
        except Exception as error:  # ONNX Runtime's and numpy's, which share no root
            refused = refused or error
            continue
        finite = all(
            np.isfinite(value).all()
            for value in map(_plain, map(np.asarray, expected.values()))
            if value.dtype.kind == "f"
        )
        if draw is not extreme_inputs or finite:
            samples.append((inputs, expected))
    return samples, refused


def naive_build(imported: ImportedModel) -> Runnable:
    """Compile the module as it is, by TVM's default pipeline, for this machine.

    Raises ``ModelError`` where TVM cannot.
    """
    import numpy as np
    import tvm
    from tvm import relax

    from autotune.target import native

    target = tvm.target.Target(native().tvm())
    try:
        built = relax.build(imported.module, target)
    except Exception as error:  # TVM fails in any way
        raise ModelError(
            f"{imported.name} uses an operator in a way that cannot be compiled "
            f"({first_line(error)}): export it without that, or cut the model before it"
        ) from error
    machine = relax.VirtualMachine(built, tvm.cpu())

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        given = [tvm.runtime.tensor(np.asarray(inputs[s.name], order="C")) for s in imported.inputs]
        try:
            result = machine["main"](*given)
        except Exception as error:  # what TVM finds out only when it runs
            raise ModelError(
                f"{imported.name} uses an operator in a way that cannot be run "
                f"({first_line(error)}): export it without that, or cut the model before it"
            ) from error
        values = [result] if hasattr(result, "numpy") else list(result)
        return {
            spec.name: value.numpy() for spec, value in zip(imported.outputs, values, strict=True)
        }

    return run


def largest(array: Any) -> float:
    """The largest finite magnitude in ``array``; 0.0 where there is none."""
    import numpy as np

    values = _plain(np.asarray(array))
    if values.dtype.kind not in "f":
        return 0.0
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(finite.max()) if finite.size else 0.0


def scaled_error(expected: Any, actual: Any, scale: float = 0.0) -> float:
    """Largest difference as a share of the largest finite magnitude in ``expected``.

    Or of ``scale``, where that is larger.

    Infinite where shapes or kinds of numbers differ, or where one is NaN or infinite and the other
    is not the same.
    Integers and booleans are compared exactly: the share of elements that differ.
    """
    import numpy as np

    expected, actual = (_plain(np.asarray(value)) for value in (expected, actual))
    if expected.shape != actual.shape or expected.dtype.kind != actual.dtype.kind:
        return math.inf
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind not in "f":
        return float(np.mean(expected != actual))
    wide, mine = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], mine[~finite], equal_nan=True):
        return math.inf
    if not np.isfinite(mine[finite]).all():
        return math.inf
    if not finite.any():
        return 0.0
    scale = max(scale, float(np.abs(wide[finite]).max())) or 1.0
    return float(np.abs(wide[finite] - mine[finite]).max()) / scale


def _plain(array: Any) -> Any:
    """An array of bfloat16 and the like as one that numpy can compute with."""
    import numpy as np

    own = array.dtype.kind in "fiub"
    return array if own or not is_float(array.dtype) else array.astype(np.float32)


def compare(
    imported: ImportedModel,
    expected: Arrays,
    actual: Arrays,
    scales: Mapping[str, float],
) -> dict[str, tuple[float, float]]:
    """Scaled error and tolerance of each output."""
    return {
        spec.name: (
            scaled_error(expected[spec.name], actual[spec.name], scales.get(spec.name, 0.0)),
            HALF_TOLERANCE if imported.half else TOLERANCE,
        )
        for spec in imported.outputs
    }


def _excess(error: tuple[float, float]) -> float:
    return error[0] / error[1]


def _rounded(
    imported: ImportedModel,
    inputs: Arrays,
    expected: Arrays,
    actual: Arrays,
    scales: Mapping[str, float],
) -> ImportCheck | None:
    """Whether a model that rounds is as right as ONNX Runtime is; None if not, or not known.

    A sum at the edge of two steps may be rounded either way, and what follows grows from that. So
    ONNX Runtime's own two ways part as well: a quantised model in floats and in integers, one of
    bfloat16 numbers rounded at its end and after every operator. And so does what it makes of a
    quantised model with its floats rounded otherwise. The import passes if it is no further from
    either of the two ways than twice as far as these are from each other, or than the step between
    two numbers that an output can be.
    """
    steps: Mapping[str, float] = getattr(imported.reference, "steps", {})
    others = otherwise(imported, inputs)
    if not others:
        return None
    from_other = compare(imported, others[0], actual, scales)
    ways = [compare(imported, expected, other, scales) for other in others]
    apart = {name: max((way[name] for way in ways), key=_excess) for name in ways[0]}
    found = {}
    for name, (error, tolerance) in compare(imported, expected, actual, scales).items():
        near = min(error, from_other[name][0])
        scale = max(scales.get(name, 0.0), largest(expected[name])) or 1.0
        step = min(AMBIGUOUS, steps.get(name, 0.0) * (1 + tolerance) / scale)
        allowed = max(tolerance, 2 * apart[name][0], step, stepwise(expected[name], actual[name]))
        if apart[name][0] > AMBIGUOUS or near > allowed:
            return None
        found[name] = near, allowed
    worst = max(found, key=lambda name: _excess(found[name]))
    return ImportCheck(*found[worst], "onnxruntime")


def _settle(
    imported: ImportedModel,
    inputs: Arrays,
    expected: Arrays,
    actual: Arrays,
    scales: Mapping[str, float],
) -> ImportCheck | None:
    """Whether double precision says that the import is right; None if it does not or cannot.

    ONNX Runtime is not always exact. The import passes if it is within tolerance of float64, or no
    further from it than twice ONNX Runtime's own distance: then the model is ill-conditioned. But
    a float64 result that ONNX Runtime is far from settles nothing: one of the two is wrong.
    """
    double = getattr(imported.reference, "double", None)
    if double is None:
        return None
    try:
        truth = double(inputs)
    except Exception:  # onnx.reference lacks operators and fails in any way: the doubt stays
        return None
    ours = compare(imported, truth, actual, scales)
    theirs = compare(imported, truth, expected, scales)
    for name, (error, tolerance) in ours.items():
        distance = theirs[name][0]
        if distance > PLAUSIBLE or error > max(tolerance, 2 * distance):
            return None
    worst = max(ours, key=lambda name: _excess(ours[name]))
    return ImportCheck(*ours[worst], "float64")
