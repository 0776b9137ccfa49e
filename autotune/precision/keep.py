"""The chosen precision in the real program: what it loses is measured, and kept with the choices.

What was planned by a model of it holds for the most part; where it does not, more is undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autotune.precision.plan import Judge, Plan, Step
from autotune.precision.told import shortened
from autotune.steps import Status, tell
from search_spaces.precisions import SPACE

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays
    from autotune.graph.model import FusedModel
    from autotune.graphs import GraphChoice
    from autotune.search.graph import GraphTrial
    from search_spaces.graph.base import Choices
    from tuning_db.database import TuningDatabase

    Build = Callable[[FusedModel], Callable[[Arrays], Arrays]]
    Fuse = Callable[[Choices], FusedModel]


@dataclass(frozen=True)
class Keeper:
    """Holds graphs to the budget of ``plan``, once their schedules were searched.

    ``fuse`` makes a graph of choices.
    """

    plan: Plan
    judge: Judge
    fuse: Fuse
    status: Status | None = None

    def held(self, choice: GraphChoice, database: TuningDatabase) -> GraphChoice | None:
        """``choice`` with graphs that hold the budget; None where only the default one is left."""
        from autotune.artifact.build import runnable
        from autotune.artifact.schedules import chosen_from

        def build(fused: FusedModel) -> Callable[[Arrays], Arrays]:
            return runnable(fused, chosen_from(database, fused))

        found = [
            self.within(trial, build) if shortened(trial.choices) else trial
            for trial in choice.finalists
        ]
        left = replace(choice, finalists=tuple(one for one in found if one is not None))
        return left if left.others else None

    def within(self, trial: GraphTrial, build: Build) -> GraphTrial | None:
        """``trial`` with as much undone as the budget asks for, and with what it loses.

        ``build`` makes what runs of a graph.

        None where nothing is left that is shorter than float32.
        """
        choices, fused = trial.choices, trial.fused
        steps: list[Step] | None = None
        count = 1
        while mix := shortened(choices):
            lost = self.judge.error(build(fused), held=True)
            if lost <= self.plan.budget.limit:
                return self._noted(trial, choices, fused, lost)
            steps = list(self.plan.undo()) if steps is None else steps
            taken = [step for step in steps if step.place in mix][:count]
            tell(
                self.status,
                f"{len(mix)} sums of shorter numbers lose {lost:.3g} on samples held back, more "
                f"than {self.plan.budget}: {len(taken) or len(mix)} of them become longer",
            )
            steps = [step for step in steps if step not in taken]
            count *= 2  # a build each: so the last ones go together
            if not taken:
                return None
            longer = {step.place: step.kind for step in taken}
            told: dict[str, Any] = dict(choices[SPACE])
            told["parameters"] = {**told["parameters"], **longer}
            choices = {**choices, SPACE: told}
            fused = self.fuse(choices)
        return None

    def _noted(
        self, trial: GraphTrial, choices: Choices, fused: FusedModel, lost: float
    ) -> GraphTrial:
        told = {**choices[SPACE], "accuracy": self._accuracy(lost)}
        choices = {**choices, SPACE: told}
        fused = replace(fused, choices={**fused.choices, "spaces": choices})
        return replace(trial, choices=choices, fused=fused)

    def _accuracy(self, lost: float) -> dict[str, Any]:
        samples, budget = self.judge.samples, self.plan.budget
        return {
            "budget": str(budget),
            "kind": budget.kind,
            "limit": budget.limit,
            "error": lost,
            "samples": 0 if budget.kind == "metric" else len(samples.held),
            # The user's function brings its own data, and it is the same each time.
            "held_back": budget.kind != "metric" and samples.apart,
            "given": budget.kind == "metric" or samples.given,
        }
