from __future__ import annotations

import json

import optuna
import pytest

from autotune.errors import InputError
from autotune.measure.base import Measurement
from autotune.measure.outcome import BuildFailed, Crashed, Measured, TimedOut
from autotune.search.guides import FAILED
from autotune.search.recording import record_of, target_row, workload_row
from autotune.search.samplers import SAMPLERS, sampler_choice
from autotune.search.space import JointSpace, NoSpace
from autotune.search.study import Patience, TaskStudy
from autotune.testing.landscape import TARGET, PlainSpace, TileSpace, latency, make_task
from search_spaces import registry
from search_spaces.task import Candidate

SPACES = (TileSpace(), PlainSpace())


@pytest.fixture(autouse=True)
def _spaces():
    for space in SPACES:
        registry.register(space)
    yield
    for space in SPACES:
        registry.unregister(space.name)


pytestmark = pytest.mark.usefixtures("small_pool")


def study_of(sampler="cost-model", *, seed=0, **more) -> TaskStudy:
    return TaskStudy(make_task("0f3a77"), TARGET, sampler=sampler, seed=seed, **more)


def right(candidate: Candidate) -> Measurement:
    seconds = latency(make_task(), candidate)
    return Measurement(candidate, Measured(seconds, (seconds,) * 3, 0.0, 1e-5), "[]", {"run": 0.1})


def run(study: TaskStudy, trials: int, batch: int = 4) -> list[Candidate]:
    asked: list[Candidate] = []
    while len(asked) < trials:
        batch_ = study.ask(min(batch, trials - len(asked)))
        if not batch_:
            break
        asked += batch_
        for candidate in batch_:
            study.tell(right(candidate))
    return asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_defaults_first_and_never_a_duplicate_nor_a_refused_one(sampler):
    study = study_of(sampler)
    asked = run(study, 50)
    assert asked[:2] == study.joint.defaults()
    assert asked[0].space == "tile"  # of the higher priority
    assert len({c.key for c in asked}) == len(asked) == 50
    assert all(study.joint.valid(c) for c in asked)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_is_measured_completely_and_then_exhausted(sampler):
    study = study_of(sampler, spaces=[PlainSpace()])
    asked = run(study, 100, batch=3)
    assert len({c.key for c in asked}) == len(asked) == 8
    assert study.exhausted and study.finished
    assert study.best is not None and study.best.candidate.parameters["width"] == 8


def test_asking_for_more_than_there_is_gives_fewer_and_is_no_end_yet():
    study = study_of(spaces=[PlainSpace()])
    asked = study.ask(20)
    assert len(asked) == 8
    assert not study.exhausted  # they may be given back
    study.forget(asked[5:])
    for candidate in asked[:5]:
        study.tell(right(candidate))
    again = study.ask(20)
    assert {c.key for c in again} == {c.key for c in asked[5:]}


def test_any_optuna_sampler_can_be_given():
    made = []

    def factory(seed: int) -> optuna.samplers.BaseSampler:
        made.append(optuna.samplers.RandomSampler(seed=seed))
        return made[-1]

    study = study_of(factory)
    run(study, 5)
    assert study.optuna_study.sampler is made[0]


def test_unknown_sampler_and_missing_space_are_told():
    with pytest.raises(InputError, match="cost-model, random, tpe"):
        study_of("gradient-descent")
    registry.unregister("plain")
    with pytest.raises(NoSpace, match="softmax"):
        TaskStudy(make_task("c", kind="softmax"), TARGET)


def test_failures_are_told_a_finite_bad_value():
    study = study_of()
    asked = study.ask(3)
    outcomes = [Crashed("run", 11, "segfault"), TimedOut("build", 10.0), BuildFailed("apply", "no")]
    for candidate, outcome in zip(asked, outcomes, strict=True):
        study.tell(Measurement(candidate, outcome, "", {}))
    assert study.failures == {"crashed": 1, "timed_out": 1, "build_failed": 1}
    assert study.best is None and study.default_seconds is None
    assert [trial.value for trial in study.optuna_study.trials] == [FAILED] * 3
    assert all(o.failed for o in study.observations)


def records_of(study: TaskStudy) -> list:
    made = []
    for candidate, seconds in study.measured.values():
        look = right(candidate) if seconds else Measurement(candidate, TimedOut("run", 1), "", {})
        made.append(record_of(study.task, TARGET, look, run="r"))
    return made


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_made_again_from_records_it_goes_on_where_it_was(sampler):
    first = study_of(sampler)
    run(first, 30)
    failed = first.ask(1)[0]
    first.tell(Measurement(failed, TimedOut("run", 1.0), "", {}))
    again = study_of(sampler)
    assert again.restore(records_of(first)) == 31
    assert again.best == first.best
    assert again.history == first.history
    assert again.failures == {"timed_out": 1}
    assert len(again.optuna_study.trials) == 31
    assert not {c.key for c in run(again, 30)} & set(first.measured)


def test_restoring_leaves_finals_and_repeats_out():
    first = study_of()
    run(first, 5)
    records = records_of(first)
    second_look = record_of(first.task, TARGET, right(first.default), run="s", final=True)
    again = study_of()
    assert again.restore([*records, *records, second_look]) == 5


def test_records_beside_the_space_count_but_are_no_trials():
    study = study_of()
    older = Candidate("tile", 0, {"rows": 3})
    gone = Candidate("uninstalled", 1, {"x": 1})
    outcome = Measured(1e-3, (1e-3,), 0, 1)
    study.restore(
        record_of(study.task, TARGET, Measurement(c, outcome, "", {}), run="r")
        for c in (older, gone)
    )
    assert study.trials == 2
    assert study.optuna_study.trials == []
    assert study.observations == []
    assert study.ask(1) == [study.default]


def test_a_default_beside_the_choices_is_measured_all_the_same():
    class Odd(PlainSpace):
        name = "odd"

        def default(self, task, target):
            return {"width": 5, "parallel": True}

    study = study_of(spaces=[Odd()])
    asked = study.ask(20)
    assert len(asked) == 9 and asked[0].parameters["width"] == 5


def test_converged_when_nothing_was_gained_for_long():
    study = study_of(patience=Patience(window=10, least=20, gain=0.01))
    asked = study.ask(19)
    for i, candidate in enumerate(asked):
        seconds = 1e-3 / (i + 1)
        study.tell(Measurement(candidate, Measured(seconds, (seconds,), 0, 1), "", {}))
        assert not study.converged
    for candidate in study.ask(10):
        assert not study.converged
        study.tell(Measurement(candidate, Measured(1.0, (1.0,), 0, 1), "", {}))
    assert study.converged and study.finished


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_candidates_and_another_seed_others(sampler):
    def keys(seed):
        return [c.key for c in run(study_of(sampler, seed=seed), 25)]

    first = keys(1)
    assert keys(1) == first
    assert keys(2) != first


def test_points_and_candidates_convert_both_ways():
    joint = JointSpace(make_task(), TARGET)
    assert joint.count() == 16 * 6 * 5 * 5 * 3 * 2 + 8
    for candidate in run(study_of("random"), 20):
        point = joint.point(candidate)
        assert point is not None and point["space"] == candidate.space
        assert joint.candidate(point) == candidate
    assert len(list(joint.points("plain"))) == 8


def test_a_row_describes_everything_but_the_function():
    row = workload_row(make_task())
    described = json.loads(row.description)
    assert described["flops"] == make_task().flops and "function" not in described
    assert json.loads(target_row(TARGET).description)["threads"] == 2


def test_a_record_keeps_the_cause():
    look = Measurement(study_of().default, Crashed("run", 11, "segfault"), "", {"build": 0.2})
    record = record_of(make_task(), TARGET, look, run="r")
    assert (record.outcome, record.seconds, record.samples) == ("crashed", None, ())
    detail = json.loads(record.detail)
    assert detail["signal"] == 11 and detail["stage"] == "run"
    assert detail["stages"] == {"build": 0.2}


def test_samplers_are_chosen_with_their_settings():
    sampler = TaskStudy(make_task(), TARGET, sampler="cost-model:epsilon=0.5,pool=64")
    assert (sampler.optuna_study.sampler.epsilon, sampler.optuna_study.sampler.pool) == (0.5, 64)
    assert sampler_choice("tpe:n_startup_trials=5").options == {"n_startup_trials": 5}
    TaskStudy(make_task(), TARGET, sampler="tpe:n_startup_trials=5,n_ei_candidates=8").ask(3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best", "no sampler 'best': choose one of cost-model, random, tpe"),
        ("random:seed=1", "random has no setting 'seed': what can be set is nothing"),
        ("tpe:epsilon=1", "what can be set is n_startup_trials, n_ei_candidates"),
        ("cost-model:epsilon=much", "must be a number, not 'much'"),
        ("cost-model:epsilon=1.5", "between 0 and 1"),
        ("cost-model:near=1.5", "near is a share between 0 and 1"),
        ("cost-model:pool=0", "1 or more"),
    ],
)
def test_wrong_settings_are_explained(text, words):
    with pytest.raises(InputError, match=words):
        sampler_choice(text)
