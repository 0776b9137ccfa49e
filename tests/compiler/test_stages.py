"""A long chain of elementwise operators: cut into loop nests before its expressions explode."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.artifact.build import runnable
from autotune.artifact.schedules import scheduled
from autotune.frontends.base import TensorSpec
from autotune.graph.model import FusedModel
from autotune.graph.tasks import extract_tasks
from autotune.target import native
from search_spaces.cpu.stages import stages
from tests.compiler.models import Array, Maker, lowered, relax_model

SHAPE = (16, 64)
STEPS = 40
"""Each reads what is before it two or three times, so that one expression would be 2 ** 40 long."""

SECONDS = 30.0
"""For a build that takes one or two; that of twelve uncut steps takes minutes."""

LETTERS = 1_500_000
"""Of a scheduled function, which has a million at most (x * x counts as one use of x). In one
expression, eight steps have 190,000 and each further one three times as many."""


def smooth(m: Maker, x: Any) -> Any:
    """(x + x * x) / 2, whose values stay where they were."""
    from tvm import relax

    square = m.emit(relax.op.multiply(x, x))
    return m.emit(relax.op.multiply(m.emit(relax.op.add(square, x)), m.constant(0.5)))


def smoothed(x: Array) -> Array:
    return ((x * x + x) * np.float32(0.5)).astype(np.float32)


def gated(m: Maker, x: Any) -> Any:
    """The sine of what is positive, and nine tenths of the rest."""
    from tvm import relax

    positive = m.emit(relax.op.greater(x, m.constant(0.0)))
    less = m.emit(relax.op.multiply(x, m.constant(0.9)))
    return m.emit(relax.op.where(positive, m.emit(relax.op.sin(x)), less))


def gated_by_numpy(x: Array) -> Array:
    return np.where(x > 0, np.sin(x), x * np.float32(0.9)).astype(np.float32)


def saturated(m: Maker, x: Any) -> Any:
    """x as 8 bits and back, as TVM's importer casts: neither what is infinite nor beyond a byte."""
    from tvm import relax

    op = relax.op
    wide = m.emit(op.round(m.emit(op.multiply(x, m.constant(110.0)))))
    wide = m.emit(op.minimum(m.emit(op.maximum(wide, m.constant(-128.0))), m.constant(127.0)))
    infinite = m.emit(op.logical_not(m.emit(op.isfinite(wide))))
    whole = m.emit(op.astype(m.emit(op.where(infinite, m.constant(0.0), wide)), "int32"))
    byte = m.emit(op.bitwise_and(whole, m.constant(255, "int32")))
    negative = m.emit(op.greater_equal(byte, m.constant(128, "int32")))
    less = m.emit(op.subtract(byte, m.constant(256, "int32")))
    signed = m.emit(op.astype(m.emit(op.where(negative, less, byte)), "int8"))
    real = m.emit(op.astype(m.emit(op.astype(signed, "int32")), "float32"))
    return m.emit(op.multiply(real, m.constant(0.01)))


def saturated_by_numpy(x: Array) -> Array:
    whole = np.clip(np.round(x * np.float32(110)), -128, 127)
    return np.asarray(whole * np.float32(0.01), np.float32)


def chain(step: Callable[[Maker, Any], Any], count: int) -> FusedModel:
    """A model of ``count`` steps."""

    def model(m: Maker, x: Any) -> Any:
        for _ in range(count):
            x = step(m, x)
        return x

    target = native(threads=1)
    module = lowered(relax_model([SHAPE], model), target)
    tasks, functions = extract_tasks(module)
    inputs, outputs = (TensorSpec(name, SHAPE, "float32") for name in ("x", "y"))
    return FusedModel("chain", "", target, module, (inputs,), (outputs,), tasks, functions)


@pytest.mark.parametrize(
    ("step", "numpy", "count"),
    [
        (smooth, smoothed, STEPS),
        (gated, gated_by_numpy, STEPS),
        (saturated, saturated_by_numpy, 10),
    ],
    ids=["products", "choices", "casts"],
)
def test_a_long_chain_is_cut_and_right(
    step: Callable[[Maker, Any], Any], numpy: Callable[[Array], Array], count: int
) -> None:
    fused = chain(step, count)
    (task,) = fused.tasks
    found = stages(task.workload)
    assert found is not None and 5 < len(found.kept) < count * 4
    function, entry = scheduled(task, fused.target, None, {})
    assert entry.source == "default" and len(function.script()) < LETTERS
    begun = time.monotonic()
    run = runnable(fused)
    assert time.monotonic() - begun < SECONDS
    x = np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)
    expected = x
    for _ in range(count):
        expected = numpy(expected)
    actual = run({"x": x})["y"]
    # A value at the edge of two steps may be rounded either way, and all that follows from it.
    assert np.mean(np.isclose(actual, expected, rtol=1e-4, atol=1e-6)) > 0.99


def test_a_short_chain_is_one_expression() -> None:
    (task,) = chain(smooth, 3).tasks
    found = stages(task.workload)
    assert found is not None and len(found.kept) == 1
