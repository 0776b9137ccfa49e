"""How far two engines' outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.errors import ModelError


@dataclass(frozen=True)
class Difference:
    """The largest difference between two engines' outputs.

    ``absolute`` is of one element; ``relative`` is that over the largest magnitude in that output.
    """

    output: str
    absolute: float
    relative: float


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
