"""What a user allows a model to lose, and how much it loses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autotune.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["relative", "absolute", "cosine", "metric"]
Outputs = Sequence[Mapping[str, "np.ndarray"]]
"""The outputs by name, for each sample."""


@dataclass(frozen=True)
class Budget:
    """The largest error that is allowed.

    ``relative`` is of the L2 norm of the difference over that of the right output, ``absolute`` of
    the largest difference of an element, ``cosine`` of one less the cosine between the two; of all
    samples together, and the worst output counts. ``metric`` is of what is lost of the value of the
    user's evaluation function.
    """

    kind: Kind
    limit: float

    @staticmethod
    def parse(text: str, metric: bool = False) -> Budget:
        """From "0.01", "abs:0.05" or "cosine:0.999"; with ``metric`` a bare number is of that.

        Raises ``InputError``.
        """
        form, colon, number = text.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (colon and form not in ("abs", "cosine")):
            raise InputError(
                f"{text!r} is no accuracy budget: give a number such as 0.01 (the relative error "
                "of every output), abs:0.05 or cosine:0.999"
            )
        if metric:
            if form:
                raise InputError(
                    f"with an evaluation function the budget is what its value may lose: a "
                    f"number, not {text!r}"
                )
            return Budget("metric", value)
        if form == "cosine":
            if value > 1:
                raise InputError(f"a cosine is 1 at most: {text!r} cannot be reached")
            return Budget("cosine", 1 - value)
        return Budget("absolute" if form == "abs" else "relative", value)

    def __str__(self) -> str:
        forms = {"absolute": "abs:", "cosine": "cosine:"}
        value = 1 - self.limit if self.kind == "cosine" else self.limit
        return f"{forms.get(self.kind, '')}{value:.6g}"

    def error(self, right: Outputs, found: Outputs) -> float:
        """How far ``found`` is from ``right``; infinite where it is no number. Not for metrics."""
        return max((_error(self.kind, right, found, name) for name in right[0]), default=0.0)


def _error(kind: Kind, right: Outputs, found: Outputs, name: str) -> float:
    import numpy as np

    def all_of(outputs: Outputs) -> np.ndarray:
        return np.concatenate([np.asarray(o[name], np.float64).reshape(-1) for o in outputs])

    one, other = all_of(right), all_of(found)
    # Where the original is no number nothing is lost by another such.
    same = ~np.isfinite(one) & ((one == other) | (np.isnan(one) & np.isnan(other)))
    one, other = one[~same], other[~same]
    if not np.isfinite(other).all() or not np.isfinite(one).all():
        return math.inf
    difference = np.abs(one - other)
    if kind == "absolute":
        return float(difference.max(initial=0.0))
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if kind == "cosine":
        if 0.0 in sizes:
            return 0.0 if sizes[0] == sizes[1] else 1.0
        return max(0.0, 1 - float(one @ other) / (sizes[0] * sizes[1]))
    lost = float(np.linalg.norm(difference))
    return lost / sizes[0] if sizes[0] else (0.0 if lost == 0 else math.inf)
