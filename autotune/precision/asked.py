"""What a user asks for with an accuracy budget: checked before anything is begun, then planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError
from autotune.precision.budget import Budget
from autotune.precision.evaluation import evaluation
from autotune.precision.told import counted
from autotune.steps import Status, tell

if TYPE_CHECKING:
    from autotune.frontends.base import ImportedModel
    from autotune.precision.evaluation import Evaluate
    from autotune.precision.keep import Keeper
    from search_spaces.graph.precision import PrecisionSpace
    from search_spaces.task import Target


@dataclass(frozen=True)
class Asked:
    """A budget, the user's function and samples, and the precisions that were named."""

    budget: Budget
    evaluate: Evaluate | None
    calibration: str | Path | None
    precisions: tuple[str, ...]

    def planned(
        self, imported: ImportedModel, target: Target, seed: int, status: Status | None
    ) -> tuple[Keeper | None, PrecisionSpace | None]:
        """What may be shorter than float32 within the budget, and what holds it to that.

        Nothing where nothing may. Raises ``InputError``.
        """
        from autotune.precision.keep import Keeper
        from autotune.precision.plan import Judge, offered, planned
        from autotune.precision.samples import samples_of
        from search_spaces.graph.precision import PrecisionSpace

        samples = samples_of(imported, self.calibration, seed)
        judge = Judge(imported, self.budget, self.evaluate, samples)
        if self.evaluate is not None:
            _ = judge.value  # what is wrong with the function is told on every target
        kinds = offered(target, self.precisions, samples.given, status)
        if not kinds:
            tell(status, "nothing is faster than float32 on this target: it stays that")
            return None, None
        plan = planned(judge, target, kinds, status)
        if not plan.mix:
            tell(status, f"nothing is shorter than float32 within {self.budget}")
            return None, None
        counts = counted(plan.mix.values())
        told = ", ".join(f"{count} sums in {kind}" for kind, count in counts.items())
        tell(status, f"{told}: an error of {plan.error:.3g} within {self.budget}")

        def fuse(choices: Mapping[str, Any]) -> Any:
            from autotune.graph.pipeline import optimise

            return optimise(imported, target, choices)

        return Keeper(plan, judge, fuse, status), PrecisionSpace(plan.mix)


def asked(
    budget: str | float | None,
    evaluate: str | Evaluate | None,
    calibration: str | Path | None,
    precisions: Sequence[str],
) -> Asked | None:
    """What is asked for; None where no budget is given. Raises ``InputError``."""
    if budget is None:
        given = {"--eval": evaluate, "--calibration": calibration, "--precisions": precisions}
        for name, value in given.items():
            if value:
                raise InputError(f"{name} is about what may be lost: state --accuracy-budget, too")
        return None
    if calibration is not None and not Path(calibration).is_file():
        raise InputError(f"{calibration} is no file: name an .npz file with samples of the inputs")
    function = None if evaluate is None else evaluation(evaluate)
    parsed = Budget.parse(str(budget), function is not None)
    return Asked(parsed, function, calibration, tuple(precisions))
