from __future__ import annotations

import statistics

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from autotune.search.points import distance, key_of
from autotune.search.sampler import CostModelSampler
from autotune.search.space import JointSpace
from autotune.testing.landscape import TARGET, latency, make_task
from cost_models.xgboost import XGBoostModel

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.usefixtures("landscape")


class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own contract of a sampler, on studies that are no tuning tasks."""

    @pytest.fixture
    def sampler(self):
        return lambda: CostModelSampler(seed=0)


class TestContractWithTrust(BasicSamplerTestCase):
    """The same where the guide decides from the second trial on."""

    @pytest.fixture
    def sampler(self):
        def make():
            sampler = CostModelSampler(seed=0, epsilon=0.0, pool=32)
            sampler.guide.enough = 1
            return sampler

        return make


def tune(sampler, trials: int) -> optuna.Study:
    joint = JointSpace(make_task(), TARGET)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: latency(joint.task, joint.suggest(trial)), n_trials=trials)
    return study


def guided(seed: int) -> CostModelSampler:
    """A sampler for the task; it looks at fewer points, by fewer trees, than one would for use."""
    sampler = CostModelSampler.for_task(make_task(), TARGET, XGBoostModel(rounds=40), seed=seed)
    sampler.pool = 128
    return sampler


def test_outside_of_our_loop_it_beats_random_on_a_task():
    def best(make):
        return [tune(make(seed), 40).best_value for seed in range(6)]

    ours = best(guided)
    random = best(lambda seed: optuna.samplers.RandomSampler(seed=seed))
    assert statistics.median(ours) < 0.85 * statistics.median(random)
    assert sum(g <= r for g, r in zip(ours, random, strict=True)) >= 5


def test_it_learns_on_a_study_without_a_task():
    def best(make):
        found = []
        for seed in range(4):
            study = optuna.create_study(sampler=make(seed), direction="maximize")
            study.optimize(
                lambda t: -sum((t.suggest_int(f"x{i}", 0, 9) - 3 - i) ** 2 for i in range(5)),
                n_trials=40,
            )
            found.append(study.best_value)
        return statistics.mean(found)

    assert best(lambda s: CostModelSampler(seed=s, pool=128)) > best(
        lambda s: optuna.samplers.RandomSampler(seed=s)
    )


def test_starts_with_the_defaults_of_each_space():
    study = tune(guided(0), 2)
    joint = JointSpace(make_task(), TARGET)
    assert [joint.candidate(t.params) for t in study.trials] == joint.defaults()


def test_proposes_nothing_twice_and_nothing_that_is_refused():
    study = tune(guided(1), 80)
    joint = JointSpace(make_task(), TARGET)
    assert len({key_of(t.params) for t in study.trials}) == 80
    assert all(joint.valid(joint.candidate(t.params)) for t in study.trials)


def test_a_trial_holds_the_parameters_of_its_space_only():
    study = tune(guided(1), 40)
    for trial in study.trials:
        own = trial.params["space"] + "."
        assert all(name == "space" or name.startswith(own) for name in trial.params)


def test_all_points_of_a_small_space_come_before_any_repeats():
    study = optuna.create_study(sampler=CostModelSampler(seed=0))
    points = []
    for _ in range(24):
        trial = study.ask()
        points.append((trial.suggest_int("a", 1, 6), trial.suggest_categorical("b", list("wxyz"))))
        study.tell(trial, points[-1][0])
    # The first trial tells the sampler which parameters there are.
    assert len(set(points)) == 24


def test_parallel_proposals_keep_away_from_each_other():
    sampler = guided(0)
    sampler.epsilon = 0.0
    study = tune(sampler, 60)
    joint = JointSpace(make_task(), TARGET)
    trials = [study.ask() for _ in range(4)]
    for trial in trials:
        joint.suggest(trial)
    running = [trial.params for trial in trials]
    for i, one in enumerate(running):
        assert all(distance(one, other) > 1 for other in running[:i])


def test_same_seed_gives_the_same_proposals():
    def made():
        return [trial.params for trial in tune(guided(7), 30).trials]

    assert made() == made()


def test_epsilon_must_be_a_share():
    with pytest.raises(ValueError, match="epsilon"):
        CostModelSampler(epsilon=2.0)
    with pytest.raises(ValueError, match="near"):
        CostModelSampler(near=-0.1)
