from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import spearmanr

from autotune.search.space import JointSpace
from autotune.testing.landscape import TARGET, TileSpace, latency, make_task
from cost_models.base import CostModel, CostModelError, Observation
from cost_models.features import TASK_COLUMNS, Schema, decision_features, task_features
from cost_models.random import RandomModel
from cost_models.xgboost import XGBoostModel
from search_spaces.base import InvalidParameters
from search_spaces.task import Candidate, Task, Workload

pytestmark = pytest.mark.usefixtures("landscape")


def sample(task: Task, count: int, seed: int) -> list[Candidate]:
    joint = JointSpace(task, TARGET, [TileSpace()])
    rng = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        candidate = joint.candidate(joint.draw(rng))
        if joint.valid(candidate):
            found[candidate.key] = candidate
    return list(found.values())


def observe(task: Task, candidates: list[Candidate], fail=lambda c: False) -> list[Observation]:
    return [
        Observation(
            task, TARGET, c, decision_features(task, TARGET, c),
            None if fail(c) else latency(task, c), fail(c),
        )
        for c in candidates
    ]  # fmt: skip


@pytest.mark.parametrize("objective", ["regression", "pairwise"])
def test_ranks_unseen_candidates_in_the_order_of_their_times(objective):
    task = make_task()
    model = XGBoostModel(objective)
    model.fit(observe(task, sample(task, 100, 0)))
    unseen = sample(task, 300, 1)
    scores = model.rank(task, TARGET, unseen)
    assert spearmanr(scores, [-latency(task, c) for c in unseen])[0] > 0.8


@pytest.mark.parametrize("objective", ["regression", "pairwise"])
def test_learns_from_failures_as_worse_than_the_slowest(objective):
    task = make_task()

    def fails(candidate: Candidate) -> bool:
        return candidate.parameters["depth"] >= 8

    model = XGBoostModel(objective)
    model.fit(observe(task, sample(task, 150, 0), fails))
    unseen = sample(task, 300, 1)
    scores = model.rank(task, TARGET, unseen)
    failing = np.array([fails(c) for c in unseen])
    assert scores[failing].mean() < scores[~failing].mean()
    assert not any(fails(unseen[i]) for i in np.argsort(-scores)[:20])


def test_one_model_serves_tasks_of_very_different_times():
    small, large = make_task("small", extent=32), make_task("large", extent=512)
    seen = observe(small, sample(small, 80, 0)) + [
        Observation(s.task, s.target, s.candidate, s.features, (s.seconds or 0) * 1e3, False)
        for s in observe(large, sample(large, 80, 1))
    ]
    model = XGBoostModel()
    model.fit(seen)
    for task in (small, large):
        unseen = sample(task, 200, 2)
        order = spearmanr(model.rank(task, TARGET, unseen), [-latency(task, c) for c in unseen])
        assert order[0] > 0.7


def test_refused_and_foreign_candidates_score_minus_infinity():
    task = make_task()
    refused = Candidate("tile", 1, {**TileSpace().default(task, TARGET), "rows": 16, "columns": 64})
    foreign = Candidate("nobody", 1, {})
    newer = Candidate("tile", 2, TileSpace().default(task, TARGET))
    fine = Candidate("tile", 1, TileSpace().default(task, TARGET))
    for model in (XGBoostModel(), RandomModel()):
        scores = model.rank(task, TARGET, [refused, foreign, newer, fine])
        assert np.isneginf(scores[:3]).all()
        assert np.isfinite(scores[3])


def test_stored_model_ranks_as_the_one_that_was_stored(tmp_path):
    task = make_task()
    model = XGBoostModel(seed=3)
    model.fit(observe(task, sample(task, 60, 0)))
    model.save(tmp_path / "model.ubj")
    again = XGBoostModel.load(tmp_path / "model.ubj")
    unseen = sample(task, 50, 1)
    assert (again.rank(task, TARGET, unseen) == model.rank(task, TARGET, unseen)).all()
    assert again.trust(task, TARGET) == model.trust(task, TARGET) == 1.0


def test_a_model_without_observations_can_be_stored():
    again = XGBoostModel.from_bytes(XGBoostModel().to_bytes())
    task = make_task()
    assert again.trust(task, TARGET) == 0.0
    assert (again.rank(task, TARGET, sample(task, 3, 0)) == 0).all()


@pytest.mark.parametrize("model", [XGBoostModel, RandomModel])
@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04.", b"no model at all"])
def test_bytes_that_are_no_model_are_refused(model: type[CostModel], data: bytes):
    with pytest.raises(CostModelError):
        model.from_bytes(data)


def test_a_truncated_model_is_refused():
    task = make_task()
    model = XGBoostModel()
    model.fit(observe(task, sample(task, 20, 0)))
    data = model.to_bytes()
    for end in (len(data) - 1, len(data) // 2, 10):
        with pytest.raises(CostModelError):
            XGBoostModel.from_bytes(data[:end])


def test_same_seed_and_observations_give_the_same_model():
    task = make_task()
    made = []
    for _ in range(2):
        model = XGBoostModel(seed=5)
        model.fit(observe(task, sample(task, 60, 0)))
        made.append(model.to_bytes())
    assert made[0] == made[1]


def test_trust_grows_with_own_samples_and_is_half_for_kin():
    task, kin = make_task("a"), make_task("b", extent=128)
    other = Task(Workload("c", "softmax", "{}", (), blocks=()), 1, 1.0, 1)
    model = XGBoostModel()
    model.fit(observe(task, sample(task, 8, 0)))
    assert model.trust(task, TARGET) == 0.5
    assert model.trust(kin, TARGET) == 0.0
    model.fit(observe(task, sample(task, 40, 0)))
    assert model.trust(task, TARGET) == 1.0
    assert model.trust(kin, TARGET) == 0.5
    assert model.trust(other, TARGET) == 0.0


@pytest.mark.parametrize("objective", ["regression", "pairwise"])
def test_groups_of_failures_and_of_equal_times_can_be_fitted(objective):
    one, two = make_task("a"), make_task("b")
    seen = observe(one, sample(one, 5, 0), lambda c: True)
    model = XGBoostModel(objective)
    model.fit(seen)
    equal = [
        Observation(s.task, s.target, s.candidate, s.features, 1e-3, False)
        for s in observe(two, sample(two, 5, 0))
    ]
    model.fit(seen + equal + observe(one, sample(one, 1, 4)))
    assert np.isfinite(model.rank(two, TARGET, sample(two, 4, 1))).all()


def test_fitting_hundreds_of_samples_costs_far_less_than_one_measurement_each():
    task = make_task()
    seen = observe(task, sample(task, 400, 0))
    model = XGBoostModel()
    model.fit(seen)  # imports
    begun = time.process_time()
    for _ in range(3):
        model.fit(seen)
    # Relative to what it is for: 400 measurements of at least 100 ms.
    assert (time.process_time() - begun) / 3 < 0.1 * 400 * 0.1


def test_schema_keeps_its_columns_and_marks_what_lacks():
    schema = Schema.of([{"a": 1.0, "b": 2.0}, {"b": 3.0}])
    assert schema.columns == (*TASK_COLUMNS, "a", "b")
    task = make_task()
    made = schema.matrix([(task, TARGET)] * 2, [{"b": 5.0, "new": 1.0}, {"a": float("inf")}])
    assert made.shape == (2, len(schema.columns))
    assert np.isnan(made[0, -2]) and made[0, -1] == 5.0
    assert np.isnan(made[1]).sum() >= 2  # XGBoost refuses infinities
    assert set(task_features(task, TARGET)) <= set(TASK_COLUMNS)


def test_decisions_of_another_version_are_refused():
    task = make_task()
    with pytest.raises(InvalidParameters, match="version"):
        decision_features(task, TARGET, Candidate("tile", 9, TileSpace().default(task, TARGET)))
