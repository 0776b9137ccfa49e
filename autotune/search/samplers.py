"""Which sampler a search uses: a name with its settings, or whatever makes an Optuna sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autotune.errors import InputError
from autotune.search.guides import TaskGuide
from autotune.search.space import JointSpace
from cost_models.base import CostModel

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

SamplerFactory = Callable[[int], "BaseSampler"]
"""Makes an Optuna sampler of a seed."""

OPTIONS: dict[str, dict[str, type[int] | type[float]]] = {
    "cost-model": {"epsilon": float, "pool": int, "elites": int, "near": float},
    "tpe": {"n_startup_trials": int, "n_ei_candidates": int},
    "random": {},
}
"""The samplers that are known by name, and what can be set of each."""

SAMPLERS = tuple(OPTIONS)


@dataclass(frozen=True)
class SamplerChoice:
    """A sampler by name, with its settings."""

    name: str
    options: Mapping[str, int | float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> SamplerChoice:
        """Read "tpe" or "cost-model:epsilon=0.2,pool=1024". Raises ``InputError``."""
        name, _, rest = text.partition(":")
        if name not in OPTIONS:
            raise InputError(f"there is no sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
        options: dict[str, int | float] = {}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            kind = OPTIONS[name].get(key)
            if kind is None:
                known = ", ".join(OPTIONS[name]) or "nothing"
                raise InputError(f"{name} has no setting {key!r}: what can be set is {known}")
            try:
                options[key] = kind(value)
            except ValueError:
                raise InputError(f"{key} of {name} must be a number, not {value!r}") from None
            if not 0 <= options[key] < 1_000_000 or (kind is int and options[key] < 1):
                raise InputError(f"{key} of {name} must be 1 or more, not {value}")
        for share in ("epsilon", "near"):
            if options.get(share, 0.0) > 1:
                raise InputError(f"{share} is a share between 0 and 1, not {options[share]}")
        return cls(name, options)

    def make(self, joint: JointSpace, model: CostModel | None, seed: int) -> BaseSampler:
        """The sampler for a task; ``model``, fitted by the caller, guides "cost-model"."""
        from optuna.samplers import RandomSampler, TPESampler

        if self.name == "random":
            return RandomSampler(seed=seed)
        if self.name == "tpe":
            with warnings.catch_warnings():  # groups are marked as experimental
                warnings.simplefilter("ignore")
                # The parameters of the spaces not chosen are missing: only groups take that.
                return TPESampler(seed=seed, multivariate=True, group=True, **self.options)  # type: ignore[arg-type]
        from autotune.search.sampler import CostModelSampler
        from cost_models.xgboost import XGBoostModel

        guide = TaskGuide(joint, model or XGBoostModel(seed=seed), fit=model is None)
        return CostModelSampler(guide, seed=seed, **self.options)  # type: ignore[arg-type]


def quiet_study(sampler: BaseSampler) -> Study:
    """A study that minimises: one for each task of a model, whose announcements would flood the
    log."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="minimize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(level)
