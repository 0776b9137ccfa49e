"""What the choices for a model's graph are worth: ``python -m benchmarks.graph``.

Each model is built without any graph space ("plain"), with each of them alone wherever it finds
something, and with all of them as they are by default. The builds run in turns, and every output is
compared with that of the plain one.

Schedules are defaults. With ``--trials`` the same number of candidates is measured for each of
three, each with a database of its own: "direct", whose fusion, layout and algorithm are fixed (the
plain graph, and no convolution by Winograd's algorithm), "plain", which may choose the algorithm,
and "searched", which may choose all three. What was measured of kernels that only rejected graphs
need is told.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.builds import checked, each_model, parser, say, tune
from benchmarks.latency import write_json
from benchmarks.models import LONG, NAMES, model
from search_spaces.base import SearchSpace
from search_spaces.cpu.winograd import WinogradSpace
from search_spaces.graph.layouts import BLOCKED, CHANNELS_LAST
from search_spaces.registry import register, unregister

DIRECT, PLAIN, DEFAULT, SEARCHED = "direct", "plain", "default", "searched"
AIM = 1.10
"""The geometric mean over the models of the speed: of searched over direct, or else of default over
plain."""

TOLERANCE = 1e-4
"""Largest difference of an output to the plain one's, scaled by the largest value there."""


def variants(default: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The choices to build with, by name; a space that finds nothing has no build of its own.

    "graph.edges" has none either: all of its edges cut would be a model without any fusion. Where
    layouts can be chosen, all that can be are in blocks.
    """
    found: dict[str, Mapping[str, Any]] = {PLAIN: {}}
    for name, told in default.items():
        if name != "graph.edges":
            every = {place: _other(value) for place, value in told["parameters"].items()}
            found[name] = {name: {**told, "parameters": every}}
    if any(chosen(default).values()):
        found[DEFAULT] = default
    return found


def _other(value: Any) -> Any:
    return True if isinstance(value, bool) else BLOCKED if value == CHANNELS_LAST else value


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Build the variants of a model, compare what they compute, and time them in turns."""
    import autotune
    from autotune.artifact.build import build
    from autotune.bench.difference import difference
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
    databases: dict[str, Path] = {}
    if options.trials:
        plain = optimise(imported, target, {})
        names = (DIRECT, PLAIN, SEARCHED)
        databases = {each: options.work / name / f"{each}.db" for each in names}
        best = _searched(imported, plain, made, target, options.trials, databases)
        fused = {DIRECT: plain, PLAIN: plain, SEARCHED: best}
    else:
        fused = {
            variant: made if variant == DEFAULT else optimise(imported, target, choices)
            for variant, choices in variants(default).items()
        }
    engines, folders = {}, {}
    for variant, one in fused.items():
        folders[variant] = options.work / name / variant
        folders[variant].parent.mkdir(parents=True, exist_ok=True)
        build(one, best_schedules(one, databases.get(variant)), folders[variant])
        engines[variant] = autotune.load(folders[variant])
    inputs = random_inputs(imported.inputs, 0)
    outputs = {variant: engine(inputs) for variant, engine in engines.items()}
    runs = {variant: (lambda engine=engine: engine(inputs)) for variant, engine in engines.items()}
    times = interleave(runs, seconds=options.seconds, rounds=options.rounds)
    base = DIRECT if DIRECT in times else PLAIN
    return {
        "base": base,
        "variants": {
            variant: {
                "p50_ms": latency([t for turn in turns for t in turn]).p50 * 1e3,
                "times_as_fast": asdict(ratio(turns, times[base])),
                "beside_plain": asdict(ratio(turns, times[PLAIN])),
                "difference": difference(outputs[variant], outputs[PLAIN]).relative,
                "kernels": sum(task.calls for task in fused[variant].tasks),
                "peak_mb": peak_megabytes(folders[variant]),
                "chosen": chosen(fused[variant].choices["spaces"]),
            }
            for variant, turns in times.items()
        },
    }


def chosen(spaces: Mapping[str, Any]) -> dict[str, list[str]]:
    """The places that were rewritten, by graph space."""
    found = {
        name: [
            place if value is True else f"{place}: {value}"
            for place, value in told["parameters"].items()
            if value is True or (isinstance(value, str) and value != CHANNELS_LAST)
        ]
        for name, told in spaces.items()
    }
    return {name: places for name, places in found.items() if places}


def peak_megabytes(folder: Path) -> float:
    """What three inferences add to the memory of a process that has loaded the artifact."""
    code = """
import re, sys
import numpy
import autotune
def status(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\s*(\\d+) kB", file.read())[1]) / 1024
model = autotune.load(sys.argv[1])
ones = {s.name: numpy.ones(s.shape, s.dtype) for s in model.inputs}
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted from here
before = status("VmRSS")
for _ in range(3):
    model(ones)
print(status("VmHWM") - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _searched(
    imported: Any, plain: Any, made: Any, target: Any, trials: int, databases: Mapping[str, Path]
) -> Any:
    """The searched graph, as ``tune --graph`` keeps it; fills all three databases."""
    from autotune.database import open_database
    from autotune.frontends.sampling import random_inputs
    from autotune.graphs import confirmed, even, search_graph
    from autotune.measure.local import LocalRunner
    from autotune.search.settings import SearchSettings

    for path in databases.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    with LocalRunner(target) as runner:
        with open_database(databases[DIRECT]) as opened, without(WinogradSpace()):
            tune(plain, target, runner, opened, trials)
        with open_database(databases[PLAIN]) as opened:
            tune(plain, target, runner, opened, trials)
        with open_database(databases[SEARCHED]) as opened:
            tune(made, target, runner, opened, trials // 4)
            choice = search_graph(
                imported, target, runner, opened, SearchSettings(), say, trials=trials / 4
            )
            best = choice.winner.fused if choice else made
            tune(best, target, runner, opened, trials)
            if choice is not None:
                even(choice, runner, opened, SearchSettings(), say)
                best = confirmed(choice, opened, random_inputs(imported.inputs, 0), say).fused
                tune(best, target, runner, opened, trials)
            say(f"{_others(opened, best, target)} candidates of kernels of other graphs")
            return best


@contextlib.contextmanager
def without(space: SearchSpace) -> Iterator[None]:
    """As if no task matched ``space``."""
    made = type(space.name, (type(space),), {"matches": lambda *_: False})()
    register(made)
    try:
        yield
    finally:
        unregister(space.name)


def _show(name: str, found: Mapping[str, Any]) -> None:
    for variant, one in found["variants"].items():
        bases = {found["base"]: "times_as_fast", PLAIN: "beside_plain"}
        told = ", ".join(
            f"{one[key]['value']:.3f} ({one[key]['low']:.3f} to {one[key]['high']:.3f})"
            f" times as fast as {base}"
            for base, key in bases.items()
            if base != variant
        )
        print(
            f"{name:10} {variant:14} {one['p50_ms']:8.3f} ms, {told or 'the base'}, "
            f"{one['kernels']} kernels, {one['peak_mb']:.1f} MB, differs by "
            f"{one['difference']:.1e}",
            flush=True,
        )


def _others(database: Any, fused: Any, target: Any) -> int:
    """Candidates that were measured of tasks that ``fused`` does not have."""
    from tuning_db.history import workloads_of

    own = {task.workload.key for task in fused.tasks}
    return sum(
        sum(1 for _ in database.records(key, target.digest, final=False))
        for key in workloads_of(database, target.digest)
        if key not in own
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    options = parser("graph", __doc__, "a model", 20.0).parse_args(arguments)
    return checked(options, (*NAMES, LONG))


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    done = each_model("graph", lambda: parse(arguments), measured, _show)
    if done is None:
        return 2
    options, content = done
    which = SEARCHED if options.trials else DEFAULT
    last = [found["variants"].get(which) for found in content["models"].values()]
    ratios = [1.0 if one is None else one["times_as_fast"]["value"] for one in last]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    lost = [
        one
        for one in last
        if one is not None
        and min(one[key]["high"] for key in ("times_as_fast", "beside_plain")) < 1
    ]
    alone = [1.0 if one is None else one["beside_plain"]["value"] for one in last]
    beside_plain = math.exp(statistics.fmean(map(math.log, alone)))
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
    print(f"geometric mean {mean:.3f}, beside plain {beside_plain:.3f}")
    means = {"mean": mean, "mean_beside_plain": beside_plain}
    write_json(options.json, {**content, **means})
    return 0 if all(content["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
