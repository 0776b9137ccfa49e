"""How to search: everything that a user may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autotune.search.budget import Budget
from autotune.search.models import CostModelFactory
from autotune.search.samplers import SamplerFactory
from autotune.search.study import Patience


@dataclass(frozen=True)
class SearchSettings:
    """What a search may spend and how it goes about it.

    ``budget.trials`` counts the candidates measured in this and all earlier runs of the same tasks
    in the same database. ``sampler`` is a name with settings ("cost-model", "tpe", "random",
    "cost-model:epsilon=0.2") or makes an Optuna sampler from a seed. ``cost_model`` guides those
    samplers that ask for one: a name with settings, or makes one from a seed; None is the default
    one. ``batch`` candidates are asked for at a time, between which the cost model learns. The
    ``finalists`` fastest of a task are measured again with its default in ``rounds`` turns (0: no
    finals). If the first ``give_up`` candidates of everything fail, the search stops; if those of
    one task do, that task is set aside. ``cache`` notes how the runner times
    (``autotune.measure.timing.TimingPlan``). With
    ``transfer`` the search begins with what the database knows of other tasks, and of other targets
    of this class. It ends early once the sum of calls × best over all tasks is at most ``until``
    seconds, by the finals (and by the whole model, where ``tune_tasks`` is told how to time it).
    """

    budget: Budget = field(default_factory=Budget)
    sampler: str | SamplerFactory = "cost-model"
    cost_model: str | CostModelFactory | None = None
    seed: int = 0
    batch: int = 4
    finalists: int = 3
    rounds: int = 3
    give_up: int = 8
    patience: Patience = field(default_factory=Patience)
    cache: str = "cold"
    transfer: bool = True
    until: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "give_up"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def described(self) -> dict[str, Any]:
        """JSON-able: what a run notes in the database."""
        sampler, model = (
            chosen if isinstance(chosen, str | None) else repr(chosen)
            for chosen in (self.sampler, self.cost_model)
        )
        return {
            "trials": self.budget.trials,
            "seconds": self.budget.seconds,
            "sampler": sampler,
            "cost_model": model,
            "seed": self.seed,
            "batch": self.batch,
            "finalists": self.finalists,
            "rounds": self.rounds,
            "cache": self.cache,
            "transfer": self.transfer,
            "until": self.until,
        }
