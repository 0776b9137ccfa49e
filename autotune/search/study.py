"""One task's study: Optuna asks and is told, and no candidate is proposed twice.

The study lives in memory and is made again from the records of the database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured
from autotune.search.guides import FAILED
from autotune.search.knowledge import Seed
from autotune.search.samplers import SamplerFactory, make_sampler, quiet_study
from autotune.search.space import JointSpace, candidate_of
from cost_models.base import CostModel, Observation
from search_spaces.base import SearchSpace
from search_spaces.task import Candidate, Target, Task
from tuning_db.records import Record

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

DUPLICATES = 16
"""How often a sampler may propose what is known already before a random point takes its place."""


@dataclass(frozen=True)
class Patience:
    """When a task counts as converged.

    It does once its last ``window`` measurements (of at least ``least``) made the best time better
    by less than the share ``gain``.
    """

    window: int = 32
    least: int = 48
    gain: float = 0.01


@dataclass(frozen=True)
class Best:
    """The fastest candidate so far, in seconds of one call."""

    candidate: Candidate
    seconds: float


class TaskStudy:
    """Proposes candidates of one task and learns what became of them."""

    def __init__(
        self,
        task: Task,
        target: Target,
        *,
        sampler: str | SamplerFactory = "cost-model",
        model: CostModel | None = None,
        seed: int = 0,
        spaces: Sequence[SearchSpace] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Start a study without trials.

        ``sampler`` is what ``sampler_choice`` reads, or makes one from a seed; ``model`` guides
        those that ask for one, and is fitted by the caller. Raises ``InputError`` for a sampler of
        another name and ``NoSpace`` where no space matches.
        """
        self.task = task
        self.target = target
        self.joint = JointSpace(task, target, spaces)
        self.patience = Patience() if patience is None else patience
        self.default = self.joint.defaults()[0]
        self.seeds: Sequence[Seed] = ()
        """Candidates to begin with, after the default."""
        self.default_seconds: float | None = None
        self.best: Best | None = None
        self.history: list[float] = []
        """Best seconds after each measurement, infinite until one succeeded."""
        self.measured: dict[str, tuple[Candidate, float | None]] = {}
        """By candidate key, in order of measurement; None where it failed."""
        self.failures: dict[str, int] = {}
        self.messages: list[str] = []
        self.observations: list[Observation] = []
        self.exhausted = False
        self._pending: dict[str, int | None] = {}
        self._inside = 0
        """How many of the measured are points of the joint space."""
        self._study = quiet_study(self._sampler(sampler, model, seed))

    def _sampler(
        self, sampler: str | SamplerFactory, model: CostModel | None, seed: int
    ) -> BaseSampler:
        # Two tasks of one run must not walk through their spaces in step.
        own = (seed + int(self.task.workload.key[:6] or "0", 36)) % 2**31
        return make_sampler(sampler, self.joint, model, own)

    @property
    def optuna_study(self) -> Study:
        """The Optuna study, to look at: values are seconds, ``FAILED`` for what failed."""
        return self._study

    @property
    def trials(self) -> int:
        """How many candidates have been measured."""
        return len(self.measured)

    @property
    def converged(self) -> bool:
        """Whether more trials promise next to nothing, by ``Patience``."""
        done = len(self.history)
        if done < max(self.patience.least, self.patience.window + 1):
            return False
        before, now = self.history[-1 - self.patience.window], self.history[-1]
        return math.isfinite(before) and now > before * (1.0 - self.patience.gain)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""
        return self.exhausted or self.converged

    def ask(self, count: int = 1) -> list[Candidate]:
        """Up to ``count`` new candidates: the default first, ``seeds``, the other spaces' defaults.

        None of them was measured or asked before. Fewer, or none, where the spaces hold no more
        (``exhausted`` is then set). Each must be told, or given back by ``forget``.
        """
        made: list[Candidate] = []
        own, *others = self.joint.defaults()
        for candidate in (own, *(seed.candidate for seed in self.seeds), *others):
            if len(made) < count and not self._known(candidate):
                self._enqueue(candidate)
                made.append(candidate)
        while len(made) < count:
            found = self._propose()
            if found is None:
                self.exhausted = not self._pending
                break
            made.append(found)
        return made

    def origin(self, candidate: Candidate) -> Mapping[str, Any] | None:
        """Where a candidate came from that was given as one of ``seeds``; None for any other."""
        found = (seed.origin for seed in self.seeds if seed.candidate.key == candidate.key)
        return next(found, None)

    def _known(self, candidate: Candidate) -> bool:
        return candidate.key in self.measured or candidate.key in self._pending

    def _enqueue(self, candidate: Candidate) -> None:
        """Take a candidate that the sampler did not choose as a trial of the study."""
        point = self.joint.point(candidate)
        if point is None:  # a default beside the choices: measured, but no point of the study
            self._pending[candidate.key] = None
            return
        self._study.enqueue_trial(point)
        trial = self._study.ask()
        self.joint.suggest(trial)
        self._pending[candidate.key] = trial.number

    def _propose(self) -> Candidate | None:
        from optuna.trial import TrialState

        total = self.joint.count()
        pending = sum(number is not None for number in self._pending.values())
        if total is not None and total <= self._inside + pending:
            return None
        for _ in range(DUPLICATES):
            trial = self._study.ask()
            candidate = self.joint.suggest(trial)
            if not self._known(candidate) and self.joint.valid(candidate):
                self._pending[candidate.key] = trial.number
                return candidate
            # Refused is worth remembering for the sampler; known already is not news.
            if self._known(candidate):
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, FAILED)
        other = self._any()
        if other is not None:
            self._enqueue(other)
        return other

    def _any(self) -> Candidate | None:
        """Some valid candidate that is not known, or None where a long look finds none."""
        import numpy as np

        # Seeded by the state, so that a study made again from records goes the same way.
        rng = np.random.default_rng([len(self.measured), len(self._pending)])
        for name in sorted(self.joint.spaces):
            for _ in range(256):
                candidate = self.joint.candidate(self.joint.draw(rng, name))
                if not self._known(candidate) and self.joint.valid(candidate):
                    return candidate
        for name in self.joint.spaces:
            count = self.joint.count(name)
            if count is None or count > 65536:
                continue
            for point in self.joint.points(name):
                candidate = self.joint.candidate(point)
                if not self._known(candidate) and self.joint.valid(candidate):
                    return candidate
        return None

    def tell(self, measurement: Measurement) -> None:
        """Learn what became of a candidate, asked for or not. A second telling changes nothing."""
        outcome = measurement.outcome
        seconds = outcome.seconds if isinstance(outcome, Measured) else None
        message = getattr(outcome, "message", "")
        self._take(measurement.candidate, seconds, outcome.kind, message)

    def forget(self, candidates: Iterable[Candidate]) -> None:
        """Give back candidates that were asked for but not measured: they may be asked again."""
        from optuna.trial import TrialState

        for candidate in candidates:
            number = self._pending.pop(candidate.key, None)
            if number is not None:
                self._study.tell(number, state=TrialState.FAIL)
                self.exhausted = False

    def restore(self, records: Iterable[Record]) -> int:
        """Learn from earlier records of this task and target; how many candidates they told of.

        Records of finals are left out: they are second looks. Of several records of one candidate
        the last counts: it was measured again since the one before was disturbed.
        """
        before = self.trials
        latest = {record.candidate: record for record in records if not record.final}
        for record in latest.values():
            candidate = candidate_of(record.space, record.space_version, record.parameters)
            seconds = record.seconds if record.outcome == Measured.kind else None
            self._take(candidate, seconds, record.outcome, "")
        return self.trials - before

    def _take(self, candidate: Candidate, seconds: float | None, kind: str, message: str) -> None:
        key = candidate.key
        if key in self.measured:
            return
        self.measured[key] = (candidate, seconds)
        if seconds is None:
            self.failures[kind] = self.failures.get(kind, 0) + 1
            if message:
                self.messages.append(f"{kind}: {message}")
        elif self.best is None or seconds < self.best.seconds:
            self.best = Best(candidate, seconds)
        self.history.append(self.best.seconds if self.best is not None else math.inf)
        if key == self.default.key:
            self.default_seconds = seconds
        features = self.joint.features(candidate)
        if features is not None:
            self.observations.append(
                Observation(self.task, self.target, candidate, features, seconds, seconds is None)
            )
        self._tell_optuna(candidate, seconds, kind)

    def _tell_optuna(self, candidate: Candidate, seconds: float | None, kind: str) -> None:
        import optuna

        value = FAILED if seconds is None else seconds
        number = self._pending.pop(candidate.key, None)
        point = self.joint.point(candidate)
        if point is not None:
            self._inside += 1
        if number is not None:
            self._study.tell(number, value)
        elif point is not None:
            every = self.joint.distributions_of(candidate.space)
            self._study.add_trial(
                optuna.create_trial(
                    params=point,
                    distributions=every,
                    value=value,
                    user_attrs={"outcome": kind},
                )
            )

    def leaders(self, count: int) -> list[Best]:
        """The ``count`` fastest candidates, fastest first; equal times in order of their keys."""
        timed = [
            (seconds, key, candidate)
            for key, (candidate, seconds) in self.measured.items()
            if seconds is not None
        ]
        timed.sort(key=lambda entry: entry[:2])
        return [Best(candidate, seconds) for seconds, _, candidate in timed[:count]]
