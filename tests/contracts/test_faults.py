"""Each contract suite finds faults: a plugin that is wrong in one way fails the test for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.samplers import RandomSampler

from autotune.errors import ModelError
from autotune.frontends.base import ImportedModel
from autotune.frontends.onnx import OnnxFrontend
from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured
from autotune.target import native
from autotune.testing import (
    AnalyticRunner,
    CostModelTestCase,
    FrontendTestCase,
    GraphSpaceTestCase,
    RunnerTestCase,
    SamplerTestCase,
    SearchSpaceTestCase,
    product,
)
from autotune.testing.landscape import make_task
from cost_models.random import RandomModel
from search_spaces.base import SearchSpace
from search_spaces.cpu.plain import PlainSpace
from search_spaces.registry import register, unregister
from search_spaces.task import Candidate, Task
from tests.compiler.models import Maker, relax_model
from tests.end_to_end.models import layers

Found = (AssertionError, pytest.fail.Exception)


@pytest.fixture
def landscape() -> Iterator[None]:
    yield from CostModelTestCase.landscape.__wrapped__(CostModelTestCase())  # type: ignore[attr-defined]


# -- cost models


class Unseeded(RandomModel):
    def __init__(self, seed: int = 0) -> None:
        super().__init__(int(np.random.default_rng().integers(1 << 30)))


class Pickled(RandomModel):
    def to_bytes(self) -> bytes:
        return pickle.dumps(self.seed)

    @classmethod
    def from_bytes(cls, data: bytes) -> Any:
        return cls(pickle.loads(data))


class Credulous(RandomModel):
    def rank(self, task: Any, target: Any, candidates: Sequence[Candidate]) -> Any:
        return np.zeros(len(candidates))


class Forgetful(RandomModel):
    @classmethod
    def from_bytes(cls, data: bytes) -> Any:
        super().from_bytes(data)
        return cls(12345)


@pytest.mark.usefixtures("landscape")
@pytest.mark.parametrize(
    ("model", "test"),
    [
        (Unseeded, "test_equal_seeds_and_observations_give_equal_scores"),
        (Pickled, "test_what_is_stored_ranks_as_before"),
        (Credulous, "test_what_its_space_refuses_is_ranked_last_of_all"),
        (Forgetful, "test_what_is_stored_ranks_as_before"),
        (RandomModel, "test_it_learns_which_candidates_are_fast"),
    ],
)
def test_cost_models(model: Any, test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(CostModelTestCase(), test)(model, make_task())


def test_a_cost_model_that_takes_any_bytes(landscape: None) -> None:
    class Gullible(RandomModel):
        @classmethod
        def from_bytes(cls, data: bytes) -> Any:
            return cls(0)

    with pytest.raises(Found):
        CostModelTestCase().test_what_is_no_stored_model_is_refused(Gullible, make_task())


# -- samplers


class Stuck(RandomSampler):
    """The first value of everything, always."""

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        found = getattr(distribution, "choices", None)
        return distribution.low if found is None else found[0]


class Chancy(RandomSampler):
    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed=None)


class Outside(RandomSampler):
    """A text where a number is wanted."""

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return "out of range"


class Impatient(RandomSampler):
    """Takes no failure."""

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        if values and values[0] > 1.0:
            raise RuntimeError("too slow")


@pytest.mark.parametrize(
    ("sampler", "test"),
    [
        (Stuck, "test_what_it_proposes_is_new_valid_and_its_own"),
        (Chancy, "test_equal_seeds_and_answers_give_equal_proposals"),
        (Outside, "test_what_it_proposes_can_be_stored"),
        (Impatient, "test_failures_do_not_stop_it"),
        (lambda seed: object(), "test_it_is_a_sampler_of_optuna"),
    ],
)
def test_samplers(sampler: Any, test: str) -> None:
    suite = SamplerTestCase()
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        landscape = SamplerTestCase.landscape.__wrapped__(suite)  # type: ignore[attr-defined]
        next(landscape)
        try:
            getattr(suite, test)(sampler)
        finally:
            next(landscape, None)


# -- runners


class Twice(AnalyticRunner):
    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        for measurement in super().run(task, candidates):
            yield measurement
            yield measurement


class Optimist(AnalyticRunner):
    """Times what is wrong."""

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        for candidate in candidates:
            yield Measurement(candidate, Measured(1e-3, (1e-3,), 0.0, 1e-5), "", {})


class Average(AnalyticRunner):
    """One number instead of the samples."""

    def run(self, task: Task, candidates: Sequence[Candidate]) -> Iterator[Measurement]:
        for candidate in candidates:
            yield Measurement(candidate, Measured(1e-3, (), 0.0, 1e-5), "", {})


@pytest.mark.parametrize(
    ("runner", "test"),
    [
        (Twice, "test_each_candidate_gets_one_measurement"),
        (Optimist, "test_a_fault_is_an_outcome_and_harms_no_other_candidate"),
        (Average, "test_what_is_right_is_measured_with_all_samples"),
    ],
)
def test_runners(runner: Any, test: str) -> None:
    from autotune.measure.outcome import Crashed

    good = [Candidate("a", 1, {"x": x}) for x in (1, 2)]
    faulty = [(Candidate("bad", 1, {}), Crashed)]
    words = [good, faulty] if "fault" in test else [good]
    with pytest.raises(AssertionError):
        getattr(RunnerTestCase(), test)(runner(native(), lambda *_: 1e-3), make_task(), *words)


# -- frontends


class Greedy(OnnxFrontend):
    def takes(self, source: Any) -> bool:
        return True


class Other(OnnxFrontend):
    """Another number is computed than the reference has."""

    def load(self, source: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
        from dataclasses import replace

        made = super().load(source, input_shapes)
        return replace(
            made, reference=lambda x: {n: 1.01 * a for n, a in made.reference(x).items()}
        )


class Random(OnnxFrontend):
    def load(self, source: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
        import uuid
        from dataclasses import replace

        return replace(super().load(source, input_shapes), digest=uuid.uuid4().hex)


class Rough(OnnxFrontend):
    def load(self, source: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
        Path(source).read_bytes()
        return super().load(source, {n: s for n, s in input_shapes.items() if n == "x"})


@pytest.mark.parametrize(
    ("frontend", "test"),
    [
        (Greedy, "test_it_takes_its_models_and_no_others"),
        (Other, "test_the_import_computes_what_the_model_does"),
        (Random, "test_equal_models_have_an_equal_digest"),
        (Rough, "test_a_shape_of_no_input_is_refused"),
        (Rough, "test_a_damaged_file_is_a_sentence"),
    ],
)
def test_frontends(frontend: Any, test: str, tmp_path: Path) -> None:
    suite = FrontendTestCase()
    words: list[Any] = [frontend(), [(layers(tmp_path / "a.onnx"), {})]]
    if test.endswith("no_others"):
        words.append([tmp_path])
    if test.endswith("sentence"):
        words.append(tmp_path)
    with pytest.raises((*Found, ModelError, FileNotFoundError)):
        getattr(suite, test)(*words)


# -- graph spaces


def products(m: Maker, x: Any) -> list[Any]:
    from tvm import relax

    made = [m.emit(relax.op.matmul(x, m.weight(16, columns))) for columns in (8, 12)]
    return [m.emit(relax.op.nn.relu(value)) for value in made]


def graph_faults() -> dict[str, tuple[Callable[[], Any], str]]:
    from optuna.distributions import CategoricalDistribution
    from tvm import relax

    from search_spaces.graph.base import GraphSpace
    from search_spaces.graph.parallel import ParallelSpace

    @relax.expr_functor.mutator
    class Swap(relax.PyExprMutator):
        def visit_call_(self, call: Any) -> Any:
            call = super().visit_call_(call)
            return relax.op.sigmoid(call.args[0]) if call.op.name == "relax.nn.relu" else call

    class Other(GraphSpace):
        """Another function where it is chosen."""

        name = "test.other"

        def parameters(self, module: Any, target: Any) -> Any:
            return {"other": CategoricalDistribution([False, True])}

        def default(self, module: Any, target: Any) -> Any:
            return {"other": True}

        def apply(self, module: Any, target: Any, parameters: Any) -> Any:
            if not parameters.get("other", True):
                return module
            changed = module.clone()
            changed.update_func(
                module.get_global_var("main"), Swap(module).visit_expr(module["main"])
            )
            return changed

    class Nothing(ParallelSpace):
        def parameters(self, module: Any, target: Any) -> Any:
            return {}

        def default(self, module: Any, target: Any) -> Any:
            return {}

    class Strict(ParallelSpace):
        def apply(self, module: Any, target: Any, parameters: Any) -> Any:
            assert parameters.keys() == self.parameters(module, target).keys()
            return super().apply(module, target, parameters)

    return {
        "other": (Other, "test_every_choice_computes_the_same"),
        "nothing": (Nothing, "test_it_finds_something_to_choose"),
        "strict": (Strict, "test_older_choices_can_be_applied"),
    }


@pytest.mark.parametrize("fault", ["other", "nothing", "strict"])
def test_graph_spaces(fault: str) -> None:
    make, test = graph_faults()[fault]
    suite, target = GraphSpaceTestCase(), native()
    with pytest.raises(AssertionError):
        getattr(suite, test)(make(), [relax_model([(4, 16)], products)], target)


# -- search spaces


class Serial(PlainSpace):
    """Takes every target."""

    name = "test.serial"

    def matches(self, task: Any, target: Any) -> bool:
        return True


class Drifting(PlainSpace):
    """Another default each time."""

    name = "test.drifting"
    made = 0

    def __init__(self) -> None:
        Drifting.made += 1
        self.own = Drifting.made

    def default(self, task: Any, target: Any) -> Any:
        return {**super().default(task, target), "own": self.own}


class Wrong(PlainSpace):
    """Leaves the first element of the result out."""

    name = "test.wrong"

    def apply(self, schedule: Any, task: Any, target: Any, parameters: Any) -> None:
        from tests.compiler.faulty_spaces import WrongElement

        WrongElement().apply(schedule, task, target, {"tile": 4})


@pytest.mark.parametrize(
    ("space", "test"),
    [
        (Serial, "test_it_matches_its_tasks_on_this_kind_of_target_only"),
        (Drifting, "test_it_is_stateless"),
        (Drifting, "test_the_default_is_a_point_of_the_space"),
        (Wrong, "test_every_schedule_computes_the_function"),
    ],
)
def test_search_spaces(space: Callable[[], SearchSpace], test: str) -> None:
    suite, made = SearchSpaceTestCase(), space()
    suite.candidates = 1  # type: ignore[misc]
    register(made)
    try:
        with pytest.raises(AssertionError):
            getattr(suite, test)(made, [product(8, 16, 12)], native())
    finally:
        unregister(made.name)
