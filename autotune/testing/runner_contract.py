"""The contract of a runner as a test suite: subclass it, give a fixture ``runner``.

    class TestMyRunner(RunnerTestCase):
        @pytest.fixture(scope="class")
        @classmethod
        def runner(cls):
            with MyRunner(native()) as made:
                yield made

Without more it measures a small matrix product by the spaces that are installed, and one candidate
that cannot be scheduled. Give ``task``, ``good`` and ``faulty`` to see what it does with crashes,
hangs and wrong results. Fixtures of a whole class are class methods, as pytest 9 wants them; any
wider scope does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autotune.measure.base import Runner
from autotune.measure.outcome import KINDS, Invalid, Measured
from autotune.testing.tasks import product
from search_spaces.registry import spaces_for
from search_spaces.task import Candidate, Task

Faulty = Sequence[tuple[Candidate, type]]


class RunnerTestCase:
    """What every ``autotune.measure.base.Runner`` must do, whatever it measures on."""

    @pytest.fixture
    def runner(self) -> Runner:
        """The runner under test."""
        raise NotImplementedError("give a fixture `runner`")

    @pytest.fixture
    def task(self) -> Task:
        """What the candidates are of."""
        return product(16, 32, 24)

    @pytest.fixture
    def good(self, runner: Runner, task: Task) -> Sequence[Candidate]:
        """Candidates that must be measured: at least one, which compute what they should."""
        return [
            Candidate(space.name, space.version, space.default(task, runner.target))
            for space in spaces_for(task, runner.target)
        ]

    @pytest.fixture
    def faulty(self, good: Sequence[Candidate]) -> Faulty:
        """Candidates that must fail, each with the class of the outcome that it must have."""
        return [(replace(good[0], version=good[0].version + 1000), Invalid)]

    def test_each_candidate_gets_one_measurement(
        self, runner: Runner, task: Task, good: Sequence[Candidate]
    ) -> None:
        """No more, no less, in whatever order."""
        came = [measurement.candidate.key for measurement in runner.run(task, good)]
        assert sorted(came) == sorted(candidate.key for candidate in good)

    def test_nothing_is_measured_where_nothing_is_asked(self, runner: Runner, task: Task) -> None:
        """No candidates, no measurements."""
        assert list(runner.run(task, [])) == []

    def test_what_is_right_is_measured_with_all_samples(
        self, runner: Runner, task: Task, good: Sequence[Candidate]
    ) -> None:
        """Seconds of single executions, and an error within the tolerance."""
        for measurement in runner.run(task, good):
            outcome = measurement.outcome
            assert isinstance(outcome, Measured), outcome
            assert outcome.seconds > 0
            assert outcome.samples and all(sample > 0 for sample in outcome.samples)
            assert min(outcome.samples) <= outcome.seconds <= max(outcome.samples)
            assert 0 <= outcome.error <= outcome.tolerance
            assert all(spent >= 0 for spent in measurement.seconds.values())

    def test_a_fault_is_an_outcome_and_harms_no_other_candidate(
        self, runner: Runner, task: Task, good: Sequence[Candidate], faulty: Faulty
    ) -> None:
        """The same batch holds faulty and good candidates in turn; nothing is raised."""
        wanted = {candidate.key: kind for candidate, kind in faulty}
        batch = [
            candidate
            for index, (bad, _) in enumerate(faulty)
            for candidate in (bad, good[index % len(good)])
        ]
        count = 0
        for measurement in runner.run(task, batch):
            assert type(measurement.outcome) in KINDS.values()
            kind = wanted.get(measurement.candidate.key, Measured)
            assert type(measurement.outcome) is kind, measurement
            count += 1
        assert count == len(batch)

    def test_a_run_that_is_left_in_the_middle_leaves_a_usable_runner(
        self, runner: Runner, task: Task, good: Sequence[Candidate]
    ) -> None:
        """As after an interruption."""
        results = iter(runner.run(task, good))
        next(results)
        del results
        (again,) = runner.run(task, good[:1])
        assert isinstance(again.outcome, Measured), again.outcome
