"""The contract of a sampler as a test suite: subclass it, give a fixture ``sampler``.

    class TestMySampler(SamplerTestCase):
        @pytest.fixture
        def sampler(self):
            return MySampler  # the class, or a function: called with seed=...

What a search asks of a sampler of Optuna's: parameters that depend on the space that was chosen,
trials told by others, failures, several trials at once. ``optuna.testing.pytest_samplers`` has
suites for everything else that Optuna asks of one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from autotune.choice import Choice
from autotune.measure.base import Measurement
from autotune.measure.outcome import BuildFailed, Measured, Outcome
from autotune.search.guides import TaskGuide
from autotune.search.space import JointSpace
from autotune.search.study import TaskStudy
from autotune.testing.landscape import TARGET, PlainSpace, TileSpace, latency, make_task
from search_spaces.base import SearchSpace
from search_spaces.registry import register, unregister
from search_spaces.task import Candidate

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

MakeSampler = Callable[..., Any]
SPACES: tuple[SearchSpace, ...] = (TileSpace(), PlainSpace())


def measured(candidate: Candidate) -> Measurement:
    """What the landscape says of it."""
    seconds = latency(make_task(), candidate)
    return Measurement(candidate, Measured(seconds, (seconds,), 0.0, 1e-5), "", {})


def failed(candidate: Candidate) -> Measurement:
    """It did not build."""
    outcome: Outcome = BuildFailed("build", "it does not build")
    return Measurement(candidate, outcome, "", {})


class SamplerTestCase:
    """What a search must be able to do with every sampler, on spaces with a known answer."""

    @pytest.fixture
    def sampler(self) -> MakeSampler:
        """Makes the sampler under test: the class, or a function, called with ``seed`` and, if it
        names it, ``guide``."""
        raise NotImplementedError("give a fixture `sampler`")

    @pytest.fixture(autouse=True)
    def landscape(self) -> Iterator[None]:
        """The spaces are found by their names while a test runs."""
        for space in SPACES:
            register(space)
        yield
        for space in SPACES:
            unregister(space.name)

    def study(
        self, sampler: MakeSampler, seed: int = 0, spaces: Sequence[SearchSpace] = SPACES
    ) -> TaskStudy:
        """A search of one task with ``sampler``."""
        task, chosen = make_task(), Choice("sampler", "under test", sampler)

        def make(own: int) -> BaseSampler:
            guide = None
            if chosen.takes("guide"):
                from cost_models.xgboost import XGBoostModel

                guide = TaskGuide(JointSpace(task, TARGET, spaces), XGBoostModel(seed=own))
            made: BaseSampler = chosen.make(seed=own, guide=guide)
            return made

        return TaskStudy(task, TARGET, sampler=make, seed=seed, spaces=spaces)

    def go(
        self,
        study: TaskStudy,
        count: int,
        tell: Callable[[Candidate], Measurement] = measured,
        batch: int = 4,
    ) -> list[Candidate]:
        """Ask for ``count`` candidates, ``batch`` at a time, and tell what became of them."""
        asked: list[Candidate] = []
        while len(asked) < count:
            found = study.ask(min(batch, count - len(asked)))
            if not found:
                break
            asked += found
            for candidate in found:
                study.tell(tell(candidate))
        return asked

    def test_it_is_a_sampler_of_optuna(self, sampler: MakeSampler) -> None:
        """The study uses it as it is."""
        from optuna.samplers import BaseSampler

        assert isinstance(self.study(sampler).optuna_study.sampler, BaseSampler)

    def test_what_it_proposes_is_new_valid_and_its_own(self, sampler: MakeSampler) -> None:
        """The search makes up for what a sampler repeats, which must not be the rule."""
        study = self.study(sampler)
        asked = self.go(study, 32)
        assert len({candidate.key for candidate in asked}) == len(asked) == 32
        assert all(study.joint.valid(candidate) for candidate in asked)
        trials = {trial.number: trial for trial in study.optuna_study.trials}
        own = [
            trial
            for trial in trials.values()
            if "fixed_params" not in trial.system_attrs and trial.state.name == "COMPLETE"
        ]
        assert len(own) >= 16, "most proposals were known already"

    def test_what_it_proposes_can_be_stored(self, sampler: MakeSampler) -> None:
        """Plain numbers, texts and truth values, as the space names them."""
        for candidate in self.go(self.study(sampler), 12):
            parameters = dict(candidate.parameters)
            assert json.loads(json.dumps(parameters)) == parameters

    def test_equal_seeds_and_answers_give_equal_proposals(self, sampler: MakeSampler) -> None:
        """A search that is repeated goes the same way."""
        one, other = (
            [candidate.key for candidate in self.go(self.study(sampler, seed=3), 20)]
            for _ in range(2)
        )
        assert one == other

    def test_it_goes_on_where_another_search_ended(self, sampler: MakeSampler) -> None:
        """Trials that it did not propose are told to it, in any order."""
        before = self.study(sampler)
        known = self.go(before, 12)
        study = self.study(sampler)
        for candidate in reversed(known):
            study.tell(measured(candidate))
        asked = self.go(study, 8)
        assert len(asked) == 8
        assert not {c.key for c in asked} & {c.key for c in known}

    def test_failures_do_not_stop_it(self, sampler: MakeSampler) -> None:
        """All of the first ones, then some."""
        study = self.study(sampler)
        assert len(self.go(study, 12, failed)) == 12
        turns = iter(range(100))
        mixed = self.go(study, 12, lambda c: (measured, failed)[next(turns) % 2](c))
        assert len(mixed) == 12 and study.best is not None

    def test_many_proposals_may_be_open_at_once_and_be_given_back(
        self, sampler: MakeSampler
    ) -> None:
        """As on a runner of many devices, and after an interruption."""
        study = self.study(sampler)
        self.go(study, 4)
        asked = study.ask(12)
        assert len({candidate.key for candidate in asked}) == 12
        study.forget(asked[6:])
        for candidate in asked[:6]:
            study.tell(measured(candidate))
        assert len(self.go(study, 8)) == 8

    def test_a_small_space_is_searched_to_its_end(self, sampler: MakeSampler) -> None:
        """All eight points, then nothing."""
        study = self.study(sampler, spaces=[PlainSpace()])
        assert len(self.go(study, 20, batch=3)) == 8
        assert study.exhausted
