"""The contract of a cost model as a test suite: subclass it, give a fixture ``model``.

class TestMyModel(CostModelTestCase):
    @pytest.fixture
    def model(self):
        return MyModel  # the class, or a function: called with seed=...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import pytest

from autotune.search.space import JointSpace
from autotune.testing.landscape import TARGET, TileSpace, latency, make_task
from cost_models.base import CostModel, CostModelError, Observation
from cost_models.features import decision_features
from search_spaces.registry import register, unregister
from search_spaces.task import Candidate, Task

MakeModel = Callable[..., CostModel]


def candidates(task: Task, count: int, seed: int) -> list[Candidate]:
    """``count`` different valid points of the landscape."""
    joint = JointSpace(task, TARGET, [TileSpace()])
    rng = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        candidate = joint.candidate(joint.draw(rng))
        if joint.valid(candidate):
            found[candidate.key] = candidate
    return list(found.values())


def observe(
    task: Task, given: Sequence[Candidate], seconds: Callable[[Candidate], float | None]
) -> list[Observation]:
    """What a search tells of ``given``: their times, None for a failure."""
    times = [(candidate, seconds(candidate)) for candidate in given]
    return [
        Observation(
            task, TARGET, candidate, decision_features(task, TARGET, candidate), time, time is None
        )
        for candidate, time in times
    ]


class CostModelTestCase:
    """What every ``cost_models.base.CostModel`` must do, on candidates whose times are known."""

    learns: ClassVar[bool] = True
    """Whether it ranks by what it was told; False for one that guesses."""

    @pytest.fixture
    def model(self) -> MakeModel:
        """Makes the model under test: the class, or a function that is called with ``seed``."""
        raise NotImplementedError("give a fixture `model`")

    @pytest.fixture(autouse=True)
    def landscape(self) -> Iterator[None]:
        """The space of the candidates is found by its name while a test runs."""
        register(TileSpace())
        yield
        unregister(TileSpace.name)

    @pytest.fixture
    def task(self) -> Task:
        """What the candidates are of."""
        return make_task()

    def known(self, task: Task, count: int = 64) -> list[Observation]:
        """Measured candidates."""
        return observe(task, candidates(task, count, 0), lambda c: latency(task, c))

    def test_it_scores_before_it_was_told_anything(self, model: MakeModel, task: Task) -> None:
        """One finite number for each candidate, and a trust between 0 and 1."""
        made = model(seed=0)
        for fitted in (False, True):
            if fitted:
                made.fit([])
            scores = np.asarray(made.rank(task, TARGET, candidates(task, 5, 1)))
            assert scores.shape == (5,) and np.isfinite(scores).all()
            assert len(made.rank(task, TARGET, [])) == 0
            assert 0.0 <= made.trust(task, TARGET) <= 1.0

    def test_what_its_space_refuses_is_ranked_last_of_all(
        self, model: MakeModel, task: Task
    ) -> None:
        """Minus infinity, as for candidates of spaces or versions that are not installed."""
        default = TileSpace().default(task, TARGET)
        refused = Candidate("tile", 1, {**default, "rows": 16, "columns": 64})
        given = [
            refused,
            Candidate("nobody", 1, {}),
            Candidate("tile", 2, default),
            Candidate("tile", 1, default),
        ]
        made = model(seed=0)
        for told in ([], self.known(task)):
            made.fit(told)
            scores = np.asarray(made.rank(task, TARGET, given))
            assert np.isneginf(scores[:3]).all() and np.isfinite(scores[3])

    def test_it_takes_failures_equal_times_and_single_observations(
        self, model: MakeModel, task: Task
    ) -> None:
        """Whatever a search begins with."""
        other, few = make_task("k1", extent=128), candidates(task, 6, 2)
        for told in (
            observe(task, few[:1], lambda c: 1e-3),
            observe(task, few, lambda c: None),
            observe(task, few, lambda c: 1e-3),
            observe(task, few, lambda c: None) + self.known(other, 8),
        ):
            made = model(seed=0)
            made.fit(told)
            assert np.isfinite(made.rank(task, TARGET, few)).all()
            assert 0.0 <= made.trust(task, TARGET) <= 1.0

    def test_equal_seeds_and_observations_give_equal_scores(
        self, model: MakeModel, task: Task
    ) -> None:
        """A search can be repeated, and ``fit`` forgets what it was told before."""
        told, unseen = self.known(task), candidates(task, 20, 3)
        scores = []
        for before in (told[:9], []):
            made = model(seed=5)
            made.fit(before)
            made.fit(list(told))
            scores.append(np.asarray(made.rank(task, TARGET, unseen)))
        np.testing.assert_array_equal(scores[0], scores[1])

    def test_what_is_stored_ranks_as_before(self, model: MakeModel, task: Task) -> None:
        """As bytes that are no pickle."""
        unseen = candidates(task, 20, 3)
        for told in ([], self.known(task)):
            made = model(seed=3)
            made.fit(told)
            data = made.to_bytes()
            assert isinstance(data, bytes)
            assert data[:1] != b"\x80", "a pickle is code: store numbers instead"
            again = type(made).from_bytes(data)
            before, after = (m.rank(task, TARGET, unseen) for m in (made, again))
            np.testing.assert_array_equal(before, after)
            assert again.trust(task, TARGET) == made.trust(task, TARGET)

    def test_what_is_no_stored_model_is_refused(self, model: MakeModel, task: Task) -> None:
        """Damaged, or somebody else's: by ``CostModelError``, and nothing in it is executed."""
        made = model(seed=0)
        made.fit(self.known(task))
        whole = made.to_bytes()
        for data in (b"", b"{}", b"\x80\x04.", b"no model at all", whole[: len(whole) // 2]):
            with pytest.raises(CostModelError):
                type(made).from_bytes(data)

    def test_what_other_searches_taught_is_kept_by_its_name(
        self, model: MakeModel, task: Task
    ) -> None:
        """For a model that has a ``name``; one without learns from each run alone."""
        made, again = model(seed=0), model(seed=0)
        if not made.name:
            return
        made.ground(self.known(make_task("k1", extent=128)))
        again.read_ground(made.ground_bytes())
        unseen = candidates(task, 20, 3)
        before, after = (m.rank(task, TARGET, unseen) for m in (made, again))
        np.testing.assert_array_equal(before, after)
        with pytest.raises(CostModelError):
            model(seed=0).read_ground(b"no model at all")

    def test_it_learns_which_candidates_are_fast(self, model: MakeModel, task: Task) -> None:
        """Of candidates that it was not told of; in the same way whatever their order."""
        if not self.learns:
            return
        from scipy.stats import spearmanr

        made = model(seed=0)
        made.fit(self.known(task))
        unseen = candidates(task, 100, 4)
        scores = np.asarray(made.rank(task, TARGET, unseen))
        assert spearmanr(scores, [-latency(task, c) for c in unseen])[0] > 0.3
        turned = np.asarray(made.rank(task, TARGET, unseen[::-1]))
        np.testing.assert_allclose(turned[::-1], scores, rtol=1e-5)
