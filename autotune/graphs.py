"""The graph of a model as a part of tuning: chosen before its tasks are searched, confirmed after.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.durations import milliseconds
from autotune.steps import Status, tell
from search_spaces.task import Target, Task

if TYPE_CHECKING:
    from autotune.frontends.base import ImportedModel
    from autotune.graph.model import FusedModel
    from autotune.measure.base import Runner
    from autotune.search.graph import GraphTrial
    from autotune.search.settings import SearchSettings
    from search_spaces.graph.base import Choices
    from search_spaces.graph.precision import PrecisionSpace
    from tuning_db.database import TuningDatabase

SAID_EVERY = 10.0
"""Seconds between two lines of a search."""

SECONDS, ROUNDS = 4.0, 12
"""How long two graphs are timed side by side, and in how many turns."""


@dataclass(frozen=True)
class GraphChoice:
    """Graphs that promise to be faster than the default one, the best first.

    ``plain`` is the graph that no space touched, where the default is another one.
    """

    finalists: tuple[GraphTrial, ...]
    default: GraphTrial
    plain: GraphTrial | None = None

    @property
    def winner(self) -> GraphTrial:
        """The one that promises most, whose tasks are searched."""
        return self.finalists[0] if self.finalists else self.default

    @property
    def others(self) -> tuple[GraphTrial, ...]:
        """What is timed beside the default graph."""
        return (*self.finalists, *(() if self.plain is None else (self.plain,)))


@dataclass(frozen=True)
class GraphOutcome:
    """What became of them side by side.

    ``times_as_fast`` is the best one beside the default graph (95 %); it is ``kept`` where it is
    faster beyond the noise. ``changed`` are the graph spaces that chose otherwise in it. ``fused``
    is what is to be compiled.
    """

    kept: bool
    times_as_fast: tuple[float, float, float]
    choices: Choices
    changed: str
    fused: FusedModel = field(repr=False)


def kept_choices(
    database: str | Path | None, imported: ImportedModel, target: Target
) -> Choices | None:
    """The choices that ``database`` has for the graph of a model; None where there are none.

    Raises ``InputError`` where they need a graph space that is not installed.
    """
    from autotune.database import open_database
    from autotune.graph.choices import check_choices
    from tuning_db.graphs import graph_of

    if database is None or not Path(database).exists():
        return None
    with open_database(database, create=False, read_only=True) as opened:
        found = graph_of(opened, imported.digest, target.digest)
    if found is None:
        return None
    choices: Choices = found["choices"]
    check_choices(choices, str(database))
    return choices


def search_graph(
    imported: ImportedModel,
    target: Target,
    runner: Runner,
    database: TuningDatabase,
    settings: SearchSettings,
    status: Status | None = None,
    seconds: float = math.inf,
    trials: float = math.inf,
    precision: PrecisionSpace | None = None,
) -> GraphChoice | None:
    """Look for a graph of ``imported`` that is faster than the default one, by its tasks.

    For about ``seconds``, and ``trials`` candidates besides those of the default graph, at most.
    ``precision`` is what may be shorter than float32, and is in all of it where nothing else is
    chosen; the default graph is in float32.
    None where there is nothing to choose, or nothing to compare with the default graph, which
    nothing promises to be faster than and which is the plain one.
    """
    from autotune.graph.pipeline import fused, lay_out, simplified
    from autotune.search.graph import FINALISTS, WORTH_IT, GraphSearch
    from autotune.search.prices import Prices
    from search_spaces.registry import schedulable

    tell(status, "searching the graph")
    prices = Prices(target, runner, database, settings, lambda task: schedulable(task, target))
    search = GraphSearch(
        simplified(imported, target),
        target,
        lambda module, choices: fused(imported, target, module, choices),
        prices,
        settings.seed,
        lay_out,
        precision,
    )
    begun = time.monotonic()
    last = begun

    def told(trial: GraphTrial) -> None:
        nonlocal last
        if time.monotonic() - last > SAID_EVERY:
            last = time.monotonic()
            fastest = min(each.seconds for each in search.trials.values())
            tell(
                status,
                f"{len(search.trials)} graphs in {last - begun:.0f} s: {fastest * 1e3:.3g} ms, "
                f"the default {search.default.seconds * 1e3:.3g} ms",
            )

    best = search.run(
        seconds=seconds, told=told, spent=lambda: prices.measured - prices.default >= trials
    )
    if best is None:
        tell(status, "nothing of the graph can be chosen")
        return None
    base = search.default
    looked = (
        f"{len(search.trials)} graphs looked at ({prices.estimated} of them by an estimate), "
        f"{prices.measured} candidates measured for them"
    )
    finalists: list[GraphTrial] = []
    if best.seconds < WORTH_IT * base.seconds:
        finalists = search.finalists()
        promised = f"{base.seconds * 1e3:.3g} ms by default, {best.seconds * 1e3:.3g} ms otherwise"
        tell(status, f"{looked}: {promised}")
    else:
        tell(status, f"{looked}: the default one is the best")
    full = search.full() if precision is not None else base
    if full is not base and len(finalists) < FINALISTS:
        finalists.append(base)
    choice = GraphChoice(tuple(finalists), full, search.plain())
    return choice if choice.others else None


def in_precision(imported: ImportedModel, target: Target, precision: PrecisionSpace) -> GraphChoice:
    """The default graph in ``precision`` beside the same in float32; no search is made for it."""
    from autotune.graph.choices import choose
    from autotune.graph.pipeline import fused, lay_out, simplified
    from autotune.search.graph import GraphTrial

    def trial(space: PrecisionSpace | None, changed: str) -> GraphTrial:
        module, made = choose(simplified(imported, target), target, None, lay_out, space)
        return GraphTrial(made, math.nan, fused(imported, target, module, made), changed)

    return GraphChoice((trial(precision, precision.name),), trial(None, ""))


def even(
    choice: GraphChoice,
    runner: Runner,
    database: TuningDatabase,
    settings: SearchSettings,
    status: Status | None = None,
) -> None:
    """Search the tasks that only the other graphs need as far as those of the winner.

    Without that the default graph would be compared with schedules that nobody has searched for.
    """
    from autotune.search.budget import Budget
    from autotune.search.loop import tune_tasks
    from search_spaces.registry import schedulable

    target = choice.winner.fused.target

    def measured(task: Task) -> int:
        records = database.records(task.workload.key, target.digest, final=False)
        return sum(1 for _ in records)

    own = {t.workload.key: t for t in choice.winner.fused.tasks if schedulable(t, target)}
    others = {
        task.workload.key: task
        for trial in (choice.default, *choice.others)
        for task in trial.fused.tasks
        if task.workload.key not in own and schedulable(task, target)
    }
    if not own or not others:
        return
    each = math.ceil(sum(map(measured, own.values())) / len(own))
    tell(status, f"searching {len(others)} tasks of the graphs that it is compared with")
    budget = Budget(each * len(others))
    left = replace(settings, budget=budget, until=None)
    tune_tasks(list(others.values()), target, runner, database, left)


def confirmed(
    choice: GraphChoice, database: TuningDatabase, inputs: Any, status: Status | None = None
) -> GraphOutcome:
    """Time the graphs side by side with the best schedules that there are, and note the outcome.

    The default graph stays unless another one is faster beyond the noise. The plain one is among
    them: what no choice was made for is what the choices have to be worth it against.
    """
    import json

    from autotune.artifact.build import runnable
    from autotune.artifact.schedules import chosen_from
    from autotune.bench.interleaved import interleave
    from autotune.bench.statistics import ratio
    from autotune.search.graph import described
    from autotune.search.recording import versions_text

    others = choice.others
    graphs = "the graph" if len(others) == 1 else f"{len(others)} graphs"
    tell(status, f"comparing {graphs} with the default one")
    runs = {}
    for number, trial in enumerate((choice.default, *others)):
        engine = runnable(trial.fused, chosen_from(database, trial.fused))
        runs[str(number)] = lambda engine=engine: engine(inputs)
    times = interleave(runs, seconds=SECONDS / 2 * len(runs), rounds=ROUNDS)
    ratios = [ratio(times[str(n)], times["0"]) for n in range(1, len(runs))]
    compared = [
        {"changed": trial.changed, "choices": trial.choices, **asdict(found)}
        for trial, found in zip(others, ratios, strict=True)
    ]
    best = max(range(len(others)), key=lambda n: (ratios[n].low > 1.0, ratios[n].value))
    trial, found = others[best], ratios[best]
    kept = found.low > 1.0
    told = described(trial, choice.default, asdict(found), kept, compared)
    fused = trial.fused
    run = database.begin_run(
        fused.target.digest, fused.digest, {"graph": told}, json.loads(versions_text())
    )
    database.finish_run(run)

    def taken(name: str) -> str:
        return milliseconds(statistics.median(statistics.median(turn) for turn in times[name]))

    tell(status, f"the default graph takes {taken('0')} ms")
    for number, (one, other) in enumerate(zip(others, ratios, strict=True), 1):
        said = "no gain beyond the noise" if other.low <= 1.0 else "a gain"
        tell(
            status,
            f"{taken(str(number))} ms, {other.value:.3f} ({other.low:.3f} to {other.high:.3f}) "
            f"times as fast as the default graph with {one.changed or 'other choices'}: {said}",
        )
    tell(status, f"{trial.changed or 'another graph'} is kept" if kept else "the default is kept")
    choices: Any = told["choices"]
    return GraphOutcome(
        kept,
        (found.value, found.low, found.high),
        choices,
        trial.changed if kept else "",
        trial.fused if kept else choice.default.fused,
    )
