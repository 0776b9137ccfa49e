"""Relax modules before and after a pass: what they compute, and which operators they call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.compiler.models import Array, run

Pass = Callable[[Any], Any]


def ops(module: Any) -> Counter[str]:
    """How often "main" calls each Relax operator."""
    blocks = module["main"].body.blocks
    values = [binding.value for block in blocks for binding in block.bindings]
    return Counter(v.op.name for v in values if hasattr(v, "op") and hasattr(v.op, "name"))


def inputs_of(module: Any, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    shapes = [tuple(int(e) for e in p.ty.shape.values) for p in module["main"].params]
    return [rng.uniform(-1, 1, shape).astype("float32") for shape in shapes]


def same(module: Any, change: Pass, names: Sequence[str] = ()) -> Any:
    """Assert that ``change`` keeps every output of ``module``; returns the changed module."""
    inputs = inputs_of(module)
    changed = change(module)
    before, after = run(module, inputs), run(changed, inputs)
    assert len(before) == len(after)
    wrong = []
    for index, (expected, found) in enumerate(zip(before, after, strict=True)):
        name = names[index] if names else str(index)
        if expected.shape != found.shape or expected.dtype != found.dtype:
            wrong.append(f"{name}: {found.dtype}{found.shape} for {expected.dtype}{expected.shape}")
        elif not np.allclose(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True):
            error = np.abs(found.astype(float) - expected.astype(float)).max()
            wrong.append(f"{name}: off by {error:.3g}")
    assert not wrong, "; ".join(wrong)
    return changed
