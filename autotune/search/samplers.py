"""Which sampler a search uses: a name with its settings, or whatever makes an Optuna sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from autotune.choice import Choice, Factories, factory
from autotune.search.guides import TaskGuide
from autotune.search.space import JointSpace
from cost_models.base import CostModel

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

SamplerFactory = Callable[[int], "BaseSampler"]
"""Makes an Optuna sampler of a seed."""

SAMPLERS = ("cost-model", "tpe", "random")
"""Those that come with autotune."""


def _contract() -> type:
    from optuna.samplers import BaseSampler

    return BaseSampler


KIND: Factories[BaseSampler] = Factories(
    "sampler", "autotune.samplers", factory(_contract, "seed", "guide"), ("seed", "guide")
)
"""Any sampler class of Optuna's will do, or a function that returns one: of a ``seed`` and, where
it asks for it, the ``guide`` of a task (``autotune.search.guides.Guide``), in which the cost model
is. A new one is made for each task."""


def sampler_choice(text: str) -> Choice[BaseSampler]:
    """Read "tpe" or "cost-model:epsilon=0.2,pool=1024". Raises ``InputError``."""
    chosen = KIND.choose(text)
    chosen.make(seed=0, guide=None)  # settings that it refuses are to be known now
    return chosen


def guided(sampler: str | SamplerFactory) -> bool:
    """Whether a cost model is asked. Raises ``InputError``."""
    return isinstance(sampler, str) and KIND.choose(sampler).takes("guide")


def make_sampler(
    sampler: str | SamplerFactory, joint: JointSpace, model: CostModel | None, seed: int
) -> BaseSampler:
    """The sampler for a task; ``model``, fitted by the caller, guides those that ask for it.

    Without one, a model of the task alone does. Raises ``InputError``.
    """
    if not isinstance(sampler, str):
        return sampler(seed)
    chosen = KIND.choose(sampler)
    if not chosen.takes("guide"):
        return chosen.make(seed=seed)
    from autotune.search.models import make_model

    own = make_model(None, seed) if model is None else model
    return chosen.make(seed=seed, guide=TaskGuide(joint, own, fit=model is None))


def tpe(seed: int, n_startup_trials: int = 10, n_ei_candidates: int = 24) -> BaseSampler:
    """Optuna's TPE, for parameters that depend on the space that was chosen."""
    from optuna.samplers import TPESampler

    for name, value in (
        ("n_startup_trials", n_startup_trials), ("n_ei_candidates", n_ei_candidates),
    ):  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    with warnings.catch_warnings():  # groups are marked as experimental
        warnings.simplefilter("ignore")
        # The parameters of the spaces not chosen are missing: only groups take that.
        return TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            n_startup_trials=n_startup_trials,
            n_ei_candidates=n_ei_candidates,
        )


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
