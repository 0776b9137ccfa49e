"""What the choices for a model's graph are worth: ``python -m benchmarks.graph``.

Each model is built without any graph space ("plain"), with each of them alone, and with all of them
as they are by default. The builds run in turns, and every output is compared with that of the
plain one. With ``--trials`` the tasks of all builds are searched first, so many trials each, in one
database; otherwise schedules are defaults.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES, model
from benchmarks.options import several

PLAIN, DEFAULT = "plain", "default"
AIM = 1.10
"""The geometric mean over the models of the speed of the default choices over plain."""

TOLERANCE = 1e-4
"""Largest difference of an output to the plain one's, scaled by the largest value there."""


def variants(default: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The choices to build with, by name; a space that finds nothing has no build of its own."""
    found: dict[str, Mapping[str, Any]] = {PLAIN: {}}
    chosen = {name: told for name, told in default.items() if any(told["parameters"].values())}
    if len(chosen) > 1:
        found.update((name, {name: told}) for name, told in chosen.items())
    if chosen:
        found[DEFAULT] = default
    return found


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Build the variants of a model, compare what they compute, and time them in turns."""
    import autotune
    from autotune.artifact.build import build
    from autotune.bench.compare import difference
    from autotune.bench.interleaved import interleave
    from autotune.bench.statistics import latency, ratio
    from autotune.frontends import import_model
    from autotune.frontends.sampling import random_inputs
    from autotune.graph.pipeline import optimise
    from autotune.steps import best_schedules, resolved_target

    target = resolved_target("native", options.threads)
    path, shapes = model(name)
    imported = import_model(path, shapes)
    made = optimise(imported, target)
    default = made.choices["spaces"]
    fused = {
        variant: made if variant == DEFAULT else optimise(imported, target, choices)
        for variant, choices in variants(default).items()
    }
    database = options.work / f"{name}.db" if options.trials else None
    if database is not None:
        tasks = {task.workload.key: task for one in fused.values() for task in one.tasks}
        _search(database, tasks, target, options.trials)
    engines = {}
    for variant, one in fused.items():
        folder = options.work / name / variant
        folder.parent.mkdir(parents=True, exist_ok=True)
        build(one, best_schedules(one, database), folder)
        engines[variant] = autotune.load(folder)
    inputs = random_inputs(imported.inputs, 0)
    outputs = {variant: engine(inputs) for variant, engine in engines.items()}
    runs = {variant: (lambda engine=engine: engine(inputs)) for variant, engine in engines.items()}
    times = interleave(runs, seconds=options.seconds, rounds=options.rounds)
    return {
        "places": {
            space: sum(map(bool, told["parameters"].values())) for space, told in default.items()
        },
        "variants": {
            variant: {
                "p50_ms": latency([t for turn in turns for t in turn]).p50 * 1e3,
                "times_as_fast": asdict(ratio(turns, times[PLAIN])),
                "difference": difference(outputs[variant], outputs[PLAIN]).relative,
                "kernels": sum(task.calls for task in fused[variant].tasks),
            }
            for variant, turns in times.items()
        },
    }


def _search(path: Path, tasks: Mapping[str, Any], target: Any, trials: int) -> None:
    """Search ``tasks`` with so many trials each, in turn; what is there already counts."""
    from autotune.database import open_database
    from autotune.measure.local import LocalRunner
    from autotune.search.budget import Budget
    from autotune.search.loop import tune_tasks
    from autotune.search.settings import SearchSettings

    settings = SearchSettings(budget=Budget(trials))
    with LocalRunner(target) as runner, open_database(path) as opened:
        for number, task in enumerate(tasks.values()):
            print(f"  task {number + 1} of {len(tasks)}", file=sys.stderr, flush=True)
            tune_tasks([task], target, runner, opened, settings)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.graph", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--models", default=",".join(NAMES), help="by commas (default: %(default)s)")
    add("--trials", type=int, default=0, help="of each task (default: default schedules)")
    add("--seconds", type=float, default=20.0, help="of timing a model (default: %(default)s)")
    add("--rounds", type=int, default=20, help="turns of each build (default: %(default)s)")
    add("--work", type=Path, default=Path("build/graph"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/graph.json"), help="(%(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    options = parser.parse_args(arguments)
    options.models = several(options.models, NAMES, "model")
    if options.rounds < 1 or options.trials < 0:
        raise InputError("--rounds must be 1 or more, and --trials must be 0 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        options.work.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"benchmark": "graph", **describe(options.threads)}
        content |= {"settings": settings_of(options), "models": {}}
        with Others() as others:
            for name in options.models:
                print(f"{name}", file=sys.stderr, flush=True)
                content["models"][name] = found = measured(name, options)
                for variant, one in found["variants"].items():
                    value, low, high, _ = one["times_as_fast"].values()
                    print(
                        f"{name:10} {variant:14} {one['p50_ms']:8.3f} ms, {value:.3f} "
                        f"({low:.3f} to {high:.3f}) times as fast as plain, {one['kernels']} "
                        f"kernels, differs by {one['difference']:.1e}"
                    )
                write_json(options.json, content)
    except UserError as error:
        print(f"benchmarks.graph: {error}", file=sys.stderr)
        return 2
    last = [found["variants"].get(DEFAULT) for found in content["models"].values()]
    ratios = [1.0 if one is None else one["times_as_fast"]["value"] for one in last]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    lost = [one for one in last if one is not None and one["times_as_fast"]["high"] < 1]
    wrong = [
        one
        for found in content["models"].values()
        for one in found["variants"].values()
        if not one["difference"] <= TOLERANCE
    ]
    content["claims"] = {
        f"{AIM:g} times as fast on the geometric mean": mean >= AIM,
        "on no model a loss": not lost,
        "every choice computes the same": not wrong,
    }
    print(f"geometric mean {mean:.3f}")
    write_json(options.json, {**content, "mean": mean, "busy_cores_of_others": others.cores})
    return 0 if all(content["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
