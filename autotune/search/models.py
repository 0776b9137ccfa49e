"""Which cost model guides a search: a name with settings, or whatever makes one of a seed."""

from __future__ import annotations

from collections.abc import Callable

from autotune.choice import Factories, factory
from autotune.errors import InputError
from cost_models.base import CostModel

CostModelFactory = Callable[[int], CostModel]
"""Makes a cost model of a seed."""

COST_MODELS: Factories[CostModel] = Factories(
    "cost model", "autotune.cost_models", factory(lambda: CostModel, "seed"), ("seed",)
)
DEFAULT = "xgboost"


def make_model(chosen: str | CostModelFactory | None, seed: int) -> CostModel:
    """The cost model ``chosen``, the default one for None. Raises ``InputError``."""
    if chosen is None or isinstance(chosen, str):
        return COST_MODELS.choose(chosen or DEFAULT).make(seed=seed)
    return chosen(seed)


def unguided(sampler: str) -> InputError:
    """What is said where a cost model was chosen and the sampler asks none."""
    return InputError(
        f"the sampler {sampler} asks no cost model: leave --cost-model out, or use the sampler "
        "cost-model"
    )
