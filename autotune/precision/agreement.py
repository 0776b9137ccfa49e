"""Whether what was compiled computes what its choices of precision mean, and nothing else.

It differs from the original by what is rounded, so that says little of whether it is right. Beside
it stands the same graph for a target without the instructions: every number rounded as chosen, but
summed up in float32 by other kernels. The two differ by no more than what is rounded otherwise
where a number lies between two others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from autotune.errors import ModelError
from autotune.precision.budget import Budget
from search_spaces.cpu.dot import DOTS
from search_spaces.cpu.tile import FEATURES
from search_spaces.precisions import SPACE

if TYPE_CHECKING:
    from autotune.frontends import ImportCheck
    from autotune.frontends.base import Arrays, ImportedModel
    from autotune.graph.model import FusedModel
    from search_spaces.graph.base import Choices
    from search_spaces.task import Target

SLACK = 1e-3
"""Of an output, that may be apart in any case: some sums at the edge of two steps."""


def in_full(choices: Choices | None) -> Choices | None:
    """``choices`` without those of precision; None where there are none."""
    if choices is None:
        return None
    return {name: told for name, told in choices.items() if name != SPACE}


def check_meaning(
    imported: ImportedModel, fused: FusedModel, run: Callable[[Arrays], Arrays], seed: int = 0
) -> ImportCheck:
    """Compare ``run``, made of ``fused``, with what its choices mean, on random inputs.

    The result is of what it loses of the original, and what it may. Raises ``ModelError``.
    """
    from autotune.artifact.build import runnable
    from autotune.frontends import ImportCheck
    from autotune.frontends.sampling import sample_inputs
    from autotune.graph.pipeline import optimise

    plain = optimise(imported, without_instructions(fused.target), fused.choices["spaces"])
    inputs = sample_inputs(imported, seed)
    right, meant, found = imported.reference(inputs), runnable(plain)(inputs), run(inputs)
    measure = Budget("relative", 0.0)
    lost, intended = measure.error([right], [found]), measure.error([right], [meant])
    allowed = 2 * intended + SLACK
    apart = measure.error([meant], [found])
    if max(lost, apart) > allowed:
        raise ModelError(
            f"{imported.name} loses {lost:.2g} of its outputs and is {apart:.2g} from what its "
            f"precision means, where that loses {intended:.2g}: it computes something else"
        )
    return ImportCheck(lost, allowed, str(getattr(imported.reference, "engine", "reference")))


def without_instructions(target: Target) -> Target:
    """``target`` as one that has no instructions for sums of short numbers."""
    names = {*FEATURES.values(), *(name for dot in DOTS.values() for name in dot.features)}
    features = tuple(name for name in target.features if name not in names)
    return replace(target, features=features)
