"""The graph of a model as a part of tuning: chosen before its tasks are searched, confirmed after.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.steps import Status, tell
from search_spaces.task import Target

if TYPE_CHECKING:
    from autotune.frontends.base import ImportedModel
    from autotune.measure.base import Runner
    from autotune.search.graph import GraphTrial
    from autotune.search.settings import SearchSettings
    from search_spaces.graph.base import Choices
    from tuning_db.database import TuningDatabase

SAID_EVERY = 10.0
"""Seconds between two lines of a search."""

SECONDS, ROUNDS = 4.0, 12
"""How long two graphs are timed side by side, and in how many turns."""


@dataclass(frozen=True)
class GraphChoice:
    """A graph that promises to be faster than the default one."""

    winner: GraphTrial
    default: GraphTrial


@dataclass(frozen=True)
class GraphOutcome:
    """What became of it side by side: how many times as fast as the default graph it is (95 %)."""

    kept: bool
    times_as_fast: tuple[float, float, float]
    choices: Choices


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
) -> GraphChoice | None:
    """Look for a graph of ``imported`` that is faster than the default one, by its tasks.

    For about ``seconds`` at most. None where there is nothing to choose, or nothing promises to be
    faster.
    """
    from autotune.graph.pipeline import fused, lay_out, simplified
    from autotune.search.graph import WORTH_IT, GraphSearch, Prices
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

    best = search.run(seconds=seconds, told=told)
    if best is None:
        tell(status, "nothing of the graph can be chosen")
        return None
    base = search.default
    looked = (
        f"{len(search.trials)} graphs looked at ({prices.estimated} of them by an estimate), "
        f"{prices.measured} candidates measured for them"
    )
    if not best.seconds < WORTH_IT * base.seconds:
        tell(status, f"{looked}: the default one is the best")
        return None
    tell(
        status,
        f"{looked}: {base.seconds * 1e3:.3g} ms by default, {best.seconds * 1e3:.3g} ms otherwise",
    )
    return GraphChoice(best, base)


def confirmed(
    choice: GraphChoice, database: TuningDatabase, inputs: Any, status: Status | None = None
) -> GraphOutcome:
    """Time both graphs side by side with the best schedules that there are, and note the outcome.

    The default graph stays unless the other one is faster beyond the noise.
    """
    import json

    from autotune.artifact.build import runnable
    from autotune.artifact.schedules import chosen_from
    from autotune.bench.interleaved import interleave
    from autotune.bench.statistics import ratio
    from autotune.search.graph import described
    from autotune.search.recording import versions_text

    tell(status, "comparing the graph with the default one")
    runs = {}
    for name, trial in (("winner", choice.winner), ("default", choice.default)):
        engine = runnable(trial.fused, chosen_from(database, trial.fused))
        runs[name] = lambda engine=engine: engine(inputs)
    times = interleave(runs, seconds=SECONDS, rounds=ROUNDS)
    found = ratio(times["winner"], times["default"])
    kept = found.low > 1.0
    settings = {"graph": described(choice.winner, choice.default, asdict(found), kept)}
    fused = choice.winner.fused
    run = database.begin_run(
        fused.target.digest, fused.digest, settings, json.loads(versions_text())
    )
    database.finish_run(run)
    choices: Any = settings["graph"]["choices"]
    said = "is kept" if kept else "is not kept: no gain beyond the noise"
    tell(
        status,
        f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}) times as fast as the default "
        f"graph: it {said}",
    )
    return GraphOutcome(kept, (found.value, found.low, found.high), choices)
