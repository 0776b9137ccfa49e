"""Which of the graphs that a model can be made of is the fastest.

A study over the choices of all graph spaces. What a graph takes is the sum over its tasks of calls
times the best seconds that the database has; of a task that it has none of, a few candidates are
measured first, unless an estimate is enough to see that the graph is slower. Graphs share most of
their tasks, so that most of them cost few measurements or none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.graph.choices import LayOut, walk
from autotune.search.chains import best_along
from autotune.search.guides import FAILED
from autotune.search.points import Point, key_of, suggest, values_of
from autotune.search.samplers import quiet_study
from search_spaces.graph.base import Choices, GraphSpace
from search_spaces.precisions import FULL, SPACE
from search_spaces.task import Parameters, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

    from autotune.graph.model import FusedModel
    from search_spaces.graph.precision import PrecisionSpace

TRIALS = 32
"""Graphs that are looked at, at most."""

WORTH_IT = 0.995
"""Of the time of the default graph; what promises less is not worth a confirmation, and no single
change is worth to be made."""

FINALISTS = 3
"""Graphs that are built and timed beside the default one, at most."""

Chain = dict[str, list[Any]]
"""The values of places that follow each other, by their names in a point."""

Fuse = Callable[[Any, Choices], "FusedModel"]
"""What a module becomes that graph spaces made by these choices."""


@dataclass(frozen=True)
class GraphTrial:
    """A graph: its choices, and what one inference takes by its tasks (infinite: unknown)."""

    choices: Choices
    seconds: float
    fused: FusedModel = field(repr=False)
    changed: str = ""
    """The graph spaces that chose otherwise than by default, with commas."""


class GraphSearch:
    """Looks for the fastest graph of ``module``, which graph spaces have not touched yet."""

    def __init__(
        self,
        module: Any,
        target: Target,
        fuse: Fuse,
        price: Callable[[Sequence[Task], float], float],
        seed: int = 0,
        lay_out: LayOut | None = None,
        precision: PrecisionSpace | None = None,
    ) -> None:
        """``price`` is the seconds of all calls of some tasks, infinite where it is not known.

        It is given a bound, above which it may be an estimate that costs less.
        ``lay_out`` is what happens before late spaces are applied. ``precision`` is the space of
        its name, with what it allows.
        """
        self.module, self.target = module, target
        self.fuse, self.price, self.lay_out = fuse, price, lay_out
        self.seed, self.precision = seed, precision
        self.trials: dict[tuple[tuple[str, Any], ...], GraphTrial] = {}
        """By the point that made it."""
        self._laid_out: dict[tuple[tuple[str, Any], ...], Any] = {}
        """By the choices of the early spaces."""

    def run(
        self,
        trials: int = TRIALS,
        seconds: float = math.inf,
        told: Callable[[GraphTrial], None] | None = None,
        spent: Callable[[], bool] = lambda: False,
    ) -> GraphTrial | None:
        """The best of up to ``trials`` graphs; None where there is nothing to choose.

        The default comes first, then what differs from it in all places of a space, then in one
        place each; along chains of places neighbours are changed together, too, which tells what
        the whole chain should be. What all of these promise together is looked at, and what is left
        goes to TPE. Once
        ``seconds`` went by after the default no other graph is begun, but for that of what is
        better so far. ``told`` is called after each.
        """
        from optuna.samplers import TPESampler

        default, flips, chains = self._default()
        if not default:
            return None
        study = self._study = quiet_study(TPESampler(seed=self.seed))
        told = told or (lambda _: None)
        base = self._look(study, default)
        told(base)
        until = time.monotonic() + seconds
        better: Point = {}

        def over() -> bool:
            return time.monotonic() > until or spent()

        for flip in flips:
            if len(self.trials) >= trials - 1 or over():
                break
            found = self._look(study, {**default, **flip})
            told(found)
            # Many small gains are luck of the measurements, and do not add up.
            if found.seconds < WORTH_IT * base.seconds:
                better.update(flip)

        def looked(change: Point) -> float:
            if len(self.trials) >= trials - 1 or over():
                return math.inf
            found = self._look(study, {**default, **change})
            told(found)
            return found.seconds

        for chain in chains:
            change = self._along(chain, default, base.seconds, looked)
            if change and looked(change) < WORTH_IT * base.seconds:
                better.update(change)
        told(self._look(study, {**default, **better}))
        for _ in range(trials - len(self.trials)):
            if over():
                break
            told(self._look(study, None))
        return min(self.trials.values(), key=lambda trial: trial.seconds)

    @property
    def default(self) -> GraphTrial:
        """The graph as it is without any search; only after ``run``."""
        return next(iter(self.trials.values()))

    def full(self) -> GraphTrial:
        """The default graph, but in float32."""
        default = dict(next(iter(self.trials)))
        longer = {key: FULL for key in default if key.startswith(f"{SPACE}/")}
        return self._look(self._study, {**default, **longer}) if longer else self.default

    def finalists(self, most: int = FINALISTS) -> list[GraphTrial]:
        """Up to ``most`` graphs that promise to be faster than the default, the best first.

        Besides the best: what of it is the doing of each graph space alone. A sum over tasks does
        not see what one kernel does to the next, so of several changes only some may be a gain.
        """
        default = dict(next(iter(self.trials)))
        best = min(self.trials, key=lambda key: self.trials[key].seconds)
        found = [self.trials[best]]
        spaces = _changed(default, dict(best))
        for space in spaces if len(spaces) > 1 else ():
            own = {k: v for k, v in best if k.startswith(f"{space}/")}
            found.append(self._look(self._study, {**default, **own}))
        worth = WORTH_IT * self.default.seconds
        different = {id(one): one for one in found if one.seconds < worth}
        return sorted(different.values(), key=lambda one: one.seconds)[:most]

    def plain(self) -> GraphTrial | None:
        """The graph that no space touched; None where that is the default one. Not measured."""
        module = self.lay_out(self.module) if self.lay_out else self.module
        fused = self.fuse(module, {})
        if _calls(fused) == _calls(self.default.fused):
            return None
        return GraphTrial({}, self.price(fused.tasks, 0.0), fused, "no choices")

    def _along(
        self, chain: Chain, default: Point, base: float, looked: Callable[[Point], float]
    ) -> Point:
        """What differs from the default in the best values of ``chain``; empty: nothing.

        Changes of one place are known, or are looked at; of two only the same value is, since
        others act on each other no more than each acts on the default. What was not looked at
        changes nothing.
        """
        keys = list(chain)
        alone: dict[tuple[str, Any], float] = {}
        for key, values in chain.items():
            for value in values:
                seconds = base if value == default[key] else looked({key: value})
                alone[key, value] = seconds - base

        def together(place: int, one: Any, other: Any) -> float:
            key, following = keys[place], keys[place + 1]
            if one != other or one == default[key] or other == default[following]:
                return 0.0
            found = pairs.get((key, one))
            return 0.0 if found is None else found - base - alone[key, one] - alone[following, one]

        pairs: dict[tuple[str, Any], float] = {}
        for key, following in zip(keys, keys[1:], strict=False):
            for value in chain[key]:
                known = math.isfinite(alone[key, value])
                if known and value != default[key] and value in chain[following]:
                    seconds = looked({key: value, following: value})
                    if math.isfinite(seconds) and math.isfinite(alone[following, value]):
                        pairs[key, value] = seconds
        best = best_along([chain[key] for key in keys], lambda i, v: alone[keys[i], v], together)
        return {k: v for k, v in zip(keys, best, strict=True) if v != default[k]}

    def _default(self) -> tuple[Point, list[Point], list[Chain]]:
        """The default, changes of it (every yes or no of one space, then each value of each),
        and the chains that there are."""
        default: Point = {}
        chains: list[Chain] = []
        wholes: dict[str, Point] = {}
        every: list[Point] = []

        def decide(space: GraphSpace, module: Any) -> Parameters:
            chosen = space.default(module, self.target)
            found = space.parameters(module, self.target)
            chain = {
                f"{space.name}/{name}": list(values_of(found[name]) or ())
                for name in space.chain(module, self.target)
            }
            if len(chain) > 1:
                chains.append(chain)
            for name, distribution in found.items():
                key = f"{space.name}/{name}"
                default[key] = chosen[name]
                others = [v for v in values_of(distribution) or () if v != chosen[name]]
                every.extend({key: value} for value in others)
                for value in others:
                    if isinstance(value, bool) or value == FULL:
                        wholes.setdefault(space.name, {})[key] = value
            return chosen

        walk(self.module, self.target, decide, self.lay_out, self.precision)
        flips = [whole for whole in wholes.values() if len(whole) > 1] + every
        return default, flips, chains

    def _look(self, study: Study, point: Point | None) -> GraphTrial:
        """The graph of ``point``, or of one that the sampler chooses, told to the study.

        What ``point`` says nothing of, since other choices brought it about, is as by default.
        """
        from optuna.trial import create_trial

        trial = study.ask() if point is None else None
        given = point or {}
        distributions: dict[str, BaseDistribution] = {}
        params: Point = {}

        def decide(space: GraphSpace, module: Any) -> Parameters:
            default = space.default(module, self.target) if trial is None else {}
            chosen: dict[str, Any] = {}
            for name, distribution in space.parameters(module, self.target).items():
                key = f"{space.name}/{name}"
                distributions[key] = distribution
                if trial is not None:
                    params[key] = suggest(trial, key, distribution)
                else:
                    params[key] = given.get(key, default[name])
                chosen[name] = params[key]
            return chosen

        def laid_out(module: Any) -> Any:
            early = key_of(params)  # late spaces are asked after this
            if early not in self._laid_out:
                self._laid_out[early] = self.lay_out(module) if self.lay_out else module
            return self._laid_out[early]

        module, choices = walk(self.module, self.target, decide, laid_out, self.precision)
        key = key_of(params)
        found = self.trials.get(key)
        if found is None:
            fused = self.fuse(module, choices)
            bound = min((t.seconds for t in self.trials.values()), default=math.inf)
            seconds = self.price(fused.tasks, bound)
            first = dict(next(iter(self.trials), key))
            changed = ", ".join(_changed(first, params))
            found = self.trials[key] = GraphTrial(choices, seconds, fused, changed)
        value = found.seconds if math.isfinite(found.seconds) else FAILED
        if trial is not None:
            study.tell(trial, value)
        else:
            study.add_trial(create_trial(params=params, distributions=distributions, value=value))
        return found


def _calls(fused: FusedModel) -> dict[str, int]:
    return {task.workload.key: task.calls for task in fused.tasks}


def _changed(default: Point, point: Point) -> list[str]:
    """The graph spaces of which a place has another value in ``point``, or is not in both."""
    absent = object()
    keys = {*default, *point}
    names = {k.partition("/")[0] for k in keys if default.get(k, absent) != point.get(k, absent)}
    return sorted(names)


def described(
    trial: GraphTrial,
    default: GraphTrial,
    times_as_fast: Mapping[str, float],
    kept: bool,
    compared: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What a run keeps of a searched graph; ``choices`` are those to build with from now on.

    ``compared`` are all graphs that were timed beside the default one, ``trial`` among them.
    """
    return {
        "choices": trial.choices if kept else default.choices,
        "searched": trial.choices,
        "seconds": _known(trial.seconds),
        "default_seconds": _known(default.seconds),
        "times_as_fast": dict(times_as_fast),
        "kept": kept,
        "compared": [dict(one) for one in compared],
    }


def _known(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
