"""The contract of a search space as a test suite: subclass it, give a fixture ``space``.

    class TestMySpace(SearchSpaceTestCase):
        @pytest.fixture
        def space(self):
            return MySpace()

        @pytest.fixture
        def tasks(self):
            return [product(1, 64, 96), product(7, 33, 50)]  # see autotune.testing.tasks

Without ``tasks`` those of a few small ones are taken that the space matches. Each is compiled and
run a dozen times. Fixtures of a whole class are class methods, as pytest 9 wants them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from autotune.measure.data import Array, make_inputs, outputs_of, poison
from autotune.measure.kernel import build_kernel
from autotune.measure.reference import compute_reference
from autotune.measure.verify import Comparison, compare_outputs, tolerance_of
from autotune.target import native
from autotune.testing.tasks import small_tasks
from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.registry import register, unregister
from search_spaces.scheduling import Scheduled, replay, schedule
from search_spaces.task import Candidate, Parameters, ParameterValue, Target, Task

_ALIGNMENT = 64
_GUARD = 4096


def candidate_of(space: SearchSpace, parameters: Parameters) -> Candidate:
    """``parameters`` as a candidate of ``space``."""
    return Candidate(space.name, space.version, dict(parameters))


def draw(
    space: SearchSpace, task: Task, target: Target, *, seed: int, count: int
) -> list[dict[str, ParameterValue]]:
    """``count`` random points of ``space``, as Optuna draws them, refused ones among them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = space.parameters(task, target)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [dict(study.ask(dict(options)).params) for _ in range(count)]


def refused(space: SearchSpace, task: Task, target: Target, parameters: Parameters) -> bool:
    """Whether ``space.features`` raises ``InvalidParameters``."""
    try:
        space.features(task, target, parameters)
    except InvalidParameters:
        return True
    return False


class Judge:
    """Runs schedules of one task in this process, next to what its function computes unscheduled.

    A schedule that crashes takes the process with it: that is for tests, where it is wanted. Every
    tensor lies between guard bytes, so that writing past an output is seen, too.
    """

    def __init__(self, task: Task, target: Target, seed: int = 0) -> None:
        self.task = task
        self.target = target
        variant, self.expected = compute_reference(task, target, seed)
        self.inputs = make_inputs(task.workload, variant, seed)

    def compare(self, made: Scheduled) -> Comparison:
        """Build and run ``made``. Raises TVM's errors, and ``AssertionError`` for a torn guard."""
        import tvm

        work = self.task.workload
        kernel = build_kernel(made.module, work, self.target)
        arrays = [_Guarded(a) for a in (*self.inputs, *map(poison, outputs_of(work)))]
        tensors = [tvm.runtime.from_dlpack(guarded.array) for guarded in arrays]
        kernel.function(*kernel.pack(tensors))
        for position, guarded in enumerate(arrays):
            assert guarded.intact, f"{work.name} writes outside of argument {position}"
        for position, (given, guarded) in enumerate(zip(self.inputs, arrays, strict=False)):
            same = given.tobytes() == guarded.array.tobytes()
            assert same, f"{work.name} writes to its input {position}"
        found = [guarded.array for guarded in arrays[len(self.inputs) :]]
        return compare_outputs(work, found, self.expected, tolerance_of(work))

    def accept(self, candidate: Candidate) -> None:
        """Assert that ``candidate`` computes the function. Raises ``InvalidParameters``, too."""
        made = schedule(self.task, self.target, candidate)
        comparison = self.compare(made)
        assert comparison.right, (
            f"{candidate.space} with {dict(candidate.parameters)} on {self.task.workload.name}: "
            f"{comparison.message}"
        )


class _Guarded:
    """A copy of an array in the middle of a buffer, aligned as TVM wants it."""

    def __init__(self, source: Array) -> None:
        size = source.nbytes
        self._buffer = np.full(size + 2 * _GUARD + _ALIGNMENT, 0xFF, np.uint8)  # a NaN, as floats
        start = _GUARD + -(self._buffer.ctypes.data + _GUARD) % _ALIGNMENT
        self._ends = (start, start + size)
        self.array = self._buffer[start : start + size].view(source.dtype).reshape(source.shape)
        self.array[...] = source

    @property
    def intact(self) -> bool:
        """Whether nothing around the array was written."""
        start, end = self._ends
        return bool((self._buffer[:start] == 0xFF).all() and (self._buffer[end:] == 0xFF).all())


class SearchSpaceTestCase:
    """What every search space must hold; see the module for how to use it.

    ``candidates`` is how many random points of each task are built and run, ``draws`` how many are
    looked at to find them.
    """

    candidates: ClassVar[int] = 6
    draws: ClassVar[int] = 200

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError("give a fixture `space`")

    @pytest.fixture
    def tasks(self, space: SearchSpace, target: Target) -> Sequence[Task]:
        """Small tasks that the space matches, of every kind that it handles differently."""
        found = [task for task in small_tasks() if space.matches(task, target)]
        if not found:
            raise NotImplementedError("give a fixture `tasks`: it matches none of the usual ones")
        return found

    @pytest.fixture
    def target(self) -> Target:
        """A target that this machine can run."""
        return native()

    @pytest.fixture(autouse=True)
    def registered(self, space: SearchSpace) -> Iterator[None]:
        """The space is found by its name while a test runs, installed or not."""
        register(space)
        yield
        unregister(space.name)

    def test_it_matches_its_tasks_on_this_kind_of_target_only(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        from dataclasses import replace

        assert tasks, "a suite without tasks shows nothing"
        for task in tasks:
            assert space.matches(task, target), task.workload.name
            assert not space.matches(task, replace(target, kind="no such kind"))

    def test_it_is_stateless(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        fresh = type(space)()
        assert (fresh.name, fresh.version) == (space.name, space.version)
        for task in tasks:
            assert fresh.parameters(task, target) == space.parameters(task, target)
            assert fresh.default(task, target) == space.default(task, target)

    def test_the_default_is_a_point_of_the_space(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            options, default = space.parameters(task, target), space.default(task, target)
            assert default.keys() == options.keys(), task.workload.name
            for name, option in options.items():
                value: Any = default[name]
                inside = option._contains(option.to_internal_repr(value))
                assert inside, f"{task.workload.name}: {name}={value!r} is not in {option}"
            assert not refused(space, task, target, default)

    def test_candidates_survive_a_database(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            points = [space.default(task, target), *draw(space, task, target, seed=0, count=8)]
            for point in points:
                stored = json.loads(json.dumps(point))
                assert stored == point
                key = candidate_of(space, point).key
                assert candidate_of(space, stored).key == key
                assert candidate_of(space, dict(reversed(stored.items()))).key == key

    def test_features_are_finite_numbers_and_need_no_compiler(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            wanted = space.features(task, target, space.default(task, target)).keys()
            for point in draw(space, task, target, seed=1, count=self.draws):
                if refused(space, task, target, point):
                    continue
                found = space.features(task, target, point)
                assert found.keys() == wanted, f"other features for {point}"
                assert all(math.isfinite(value) for value in found.values()), (point, found)
                assert found == space.features(task, target, point)

    def test_features_and_apply_refuse_the_same(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            accepted = 0
            for point in draw(space, task, target, seed=2, count=self.candidates * 4):
                said = refused(space, task, target, point)
                try:
                    schedule(task, target, candidate_of(space, point))
                except InvalidParameters as error:
                    assert said, f"features accept what apply refuses: {point} ({error})"
                else:
                    assert not said, f"features refuse what apply accepts: {point}"
                    accepted += 1
                if accepted >= self.candidates:
                    break

    def test_equal_parameters_give_an_equal_trace_and_it_replays(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        import tvm

        for task in tasks:
            for point in self.points(space, task, target, seed=3):
                candidate = candidate_of(space, point)
                first, second = (schedule(task, target, candidate) for _ in range(2))
                assert first.trace == second.trace
                tvm.ir.assert_structural_equal(first.module, second.module)
                again = replay(task, target, first.trace)
                tvm.ir.assert_structural_equal(again.module, first.module)

    def test_arguments_stay_as_they_are(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            wanted = [(t.shape, t.dtype) for t in task.workload.arguments]
            for point in self.points(space, task, target, seed=4):
                made = schedule(task, target, candidate_of(space, point)).module["main"]
                assert [(tuple(map(int, p.shape)), str(p.dtype)) for p in made.params] == wanted

    def test_every_schedule_computes_the_function(
        self, space: SearchSpace, tasks: Sequence[Task], target: Target
    ) -> None:
        for task in tasks:
            judge = Judge(task, target)
            for point in self.points(space, task, target, seed=5):
                judge.accept(candidate_of(space, point))

    def points(
        self, space: SearchSpace, task: Task, target: Target, *, seed: int
    ) -> list[Mapping[str, ParameterValue]]:
        """The default, and up to ``candidates`` other points that are not refused."""
        found: list[Mapping[str, ParameterValue]] = [space.default(task, target)]
        for point in draw(space, task, target, seed=seed, count=self.draws):
            if len(found) > self.candidates:
                break
            if point not in found and not refused(space, task, target, point):
                found.append(point)
        return found
