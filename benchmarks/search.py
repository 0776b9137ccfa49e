"""Whether a search that learns is worth it: ``python -m benchmarks.search``.

On each task, and on a whole small model (ResNet-8 of MLPerf Tiny), every sampler and MetaSchedule
search with several seeds, in turns and on one measuring engine. A candidate that two of them ask
for is measured once, so none is favoured by a moment. In the end every candidate that was ever
among the three leaders of a search is measured again, all together and in turns, and that is what
counts: looks at the luckiest of many flatter whoever looked most. A search delivers the best of its
three leaders, as the finals of ``autotune tune`` would.

"transfer" is our default, after the searches of the other tasks; "cost-model" the same sampler
without what they taught.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from autotune.search.samplers import SAMPLERS
from benchmarks.candidates import conv3x3, depthwise3x3, gemm, softmax, task_of
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.metaschedule import ModuleSpace
from benchmarks.options import several
from benchmarks.search_figures import Curve, compared
from benchmarks.search_plot import plot
from benchmarks.searches import METASCHEDULE, TRANSFER, Engine, Searcher, again, judged, searched

WORKLOADS: dict[str, Callable[[], Any]] = {
    "gemm": lambda: gemm(128, 1536, 384),
    "conv": lambda: conv3x3(28, 128),
    "depthwise": lambda: depthwise3x3(56, 144),
    "softmax": lambda: softmax(12, 128, 128),
}
MODEL = "resnet8"
MODELS = (MODEL, "squeezenet")
"""Whole models: the sum over their tasks is what is searched for. On the second MetaSchedule thinks
for half an hour a seed, so it is searched only where it is asked for."""

EVERY = (TRANSFER, *SAMPLERS, METASCHEDULE)

OTHERS = ("tpe", "random")
AIM, METASCHEDULE_AIM = 0.5, 0.1
"""Of the trials that others need to 95 %, those that ours may; of MetaSchedule's time, ours to its
result."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    every = ",".join((*WORKLOADS, MODEL))
    add("--workloads", default=every, help=f"by commas, also {MODELS[1]} (default: %(default)s)")
    add("--samplers", default=",".join(EVERY), help="by commas (default: %(default)s)")
    add("--seeds", type=int, default=5, help="of each sampler (default: %(default)s)")
    add("--trials", type=int, default=128, help="of a search of one task (default: %(default)s)")
    add("--model-trials", type=int, default=320, help="of one of the model (%(default)s)")
    add("--batch", type=int, default=4, help="candidates asked for at a time (%(default)s)")
    add("--json", type=Path, default=Path("build/search.json"), help="(%(default)s)")
    add("--svg", type=Path, default=Path("build/search.svg"), help="the plot (%(default)s)")
    add("--threads", type=int, help="of one kernel (default: the physical cores)")
    options = parser.parse_args(arguments)
    options.workloads = several(options.workloads, (*WORKLOADS, *MODELS), "workloads")
    options.samplers = several(options.samplers, EVERY, "samplers")
    if min(options.seeds, options.trials, options.model_trials, options.batch) < 1:
        raise InputError("--seeds, --trials, --model-trials and --batch must be 1 or more")
    return options


def tasks_of(name: str, target: Any) -> list[Any]:
    """The tasks of a workload."""
    if name in WORKLOADS:
        return [task_of(WORKLOADS[name](), target)]
    from autotune.steps import prepared
    from search_spaces.registry import schedulable

    tasks = prepared(*whole(name), target, None).fused.tasks
    return [task for task in tasks if schedulable(task, target)]


def whole(name: str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """A whole model as ``autotune.tune`` takes it, and the shapes of its open dimensions."""
    if name != MODEL:
        from benchmarks.models import model

        return model(name)
    import torch

    from autotune.frontends.torch_export import exported
    from benchmarks.torch_architectures import ResNet8, settled

    torch.manual_seed(0)
    return exported(settled(ResNet8()), (torch.randn(1, 3, 32, 32),)), {}


def run(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Search each workload; "transfer" comes in a second pass, when all have something to teach.

    The whole model comes last, and is taught by the tasks.
    """
    from autotune.measure.local import LocalRunner
    from autotune.target import check_measurable, resolve
    from autotune.threads import set_threads
    from search_spaces.light import light_import

    target = resolve("native", options.threads)
    check_measurable(target)
    set_threads(target.threads)
    light_import()
    workloads = {name: tasks_of(name, target) for name in options.workloads}
    with (
        Others() as others,
        LocalRunner(target, plugins=["benchmarks.metaschedule"]) as runner,
        tempfile.TemporaryDirectory() as folder,
    ):
        engines: dict[str, Engine] = {}
        # A model takes longest by far: what the tasks gave is written before.
        parts = [n for n in workloads if n in WORKLOADS]
        for names in (parts, *([n] for n in workloads if n in MODELS)):
            engines.update((name, Engine(runner)) for name in names)
            found = searches(options, names, workloads, engines, folder)
            for name in names:
                rest = [(workloads[other], engines[other]) for other in engines if other != name]
                content["workloads"][name] = {
                    **figures(workloads[name], engines[name], found[name]),
                    "cost_model": judged(workloads[name], engines[name], rest),
                }
                write_json(options.json, content)
    content["busy_cores_of_others"] = others.cores


def searches(
    options: argparse.Namespace,
    names: Sequence[str],
    workloads: dict[str, list[Any]],
    engines: dict[str, Engine],
    folder: str,
) -> dict[str, dict[str, list[Searcher]]]:
    """Search each of ``names``, by workload and sampler; "transfer" is taught by all others."""
    found: dict[str, dict[str, list[Searcher]]] = {}
    for name, seed, sampler in turns(options, names):
        print(f"{name}: {sampler}, seed {seed}", file=sys.stderr, flush=True)
        teachers = (
            _database(folder, other, "cost-model", seed) for other in engines if other != name
        )
        searcher = searched(
            workloads[name],
            engines[name],
            sampler,
            _database(folder, name, sampler, seed),
            trials=options.trials if name in WORKLOADS else options.model_trials,
            batch=options.batch,
            seed=seed,
            taught=[path for path in teachers if sampler == TRANSFER and path.exists()],
        )
        found.setdefault(name, {}).setdefault(sampler, []).append(searcher)
    return found


def turns(options: argparse.Namespace, names: Sequence[str]) -> list[tuple[str, int, str]]:
    """Workload, seed and sampler of each search of the workloads ``names``, in their order."""
    every = product(names, range(options.seeds), options.samplers)
    return sorted(every, key=lambda turn: turn[2] == TRANSFER)


def _database(folder: str, workload: str, sampler: str, seed: int) -> Path:
    return Path(folder) / f"{workload}-{sampler}-{seed}.db"


def figures(
    tasks: Sequence[Any], engine: Engine, found: dict[str, list[Searcher]]
) -> dict[str, Any]:
    """Measure whoever led again, and say how far each search was."""
    calls = {task.workload.key: task.calls for task in tasks}
    looks = {name: [one.looks for one in several] for name, several in found.items()}
    told = compared(calls, looks, lambda keys: again(tasks, engine, keys))
    for name, one in told["samplers"].items():
        one["thinking_seconds"] = statistics.median(s.thought for s in found[name])
        one["looks"] = [[(*k.key, k.seconds, k.clock) for k in s.looks] for s in found[name]]
    candidates = {":".join(key): _told(engine.known[key].candidate) for key in engine.known}
    return {"tasks": len(tasks), "measured": len(engine.known), "candidates": candidates, **told}


def _told(candidate: Any) -> dict[str, Any]:
    """What a candidate is; of MetaSchedule's only that it is one."""
    parameters = {} if candidate.space == ModuleSpace.name else dict(candidate.parameters)
    return {"space": candidate.space, "parameters": parameters}


def claims_of(name: str, samplers: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at, and whether this run shows it."""
    claims = {}
    others = [samplers[s]["trials_to_0.95"] for s in OTHERS if s in samplers]
    for ours in (TRANSFER, "cost-model"):
        if ours not in samplers:
            continue
        if others:
            needed = samplers[ours]["trials_to_0.95"]
            claims[f"{name}: {ours} half the trials"] = needed <= max(1, AIM * min(others))
        if METASCHEDULE in samplers:
            theirs = samplers[METASCHEDULE]
            taken = reached(samplers[ours], theirs["final"])
            claims[f"{name}: {ours} a tenth of MetaSchedule's time"] = (
                taken is not None and taken <= METASCHEDULE_AIM * theirs["seconds"]
            )
    return claims


def reached(sampler: dict[str, Any], level: float) -> float | None:
    """Seconds after which the median curve of ``sampler`` stays at ``level``; None if never."""
    return Curve(sampler["curve"], sampler["clock"]).seconds_to(level)


def told(content: dict[str, Any]) -> dict[str, bool]:
    """Print the figures; the claims."""
    claims = {}
    for name, found in content["workloads"].items():
        best = found["best_seconds"] * 1e6
        print(f"{name}: {found['measured']} candidates measured, best known {best:.1f} us")
        theirs = found["samplers"].get(METASCHEDULE)
        for sampler, one in found["samplers"].items():
            after = "  ".join(
                f"{n}: {v['median']:.2f} ({v['low']:.2f}-{v['high']:.2f})"
                for n, v in one["after"].items()
            )
            seconds = one["seconds_to_0.95"]
            print(
                f"  {sampler:12} {after}  to 95 %: {one['trials_to_0.95']:.0f} trials, "
                f"{'never' if seconds is None else f'{seconds:.1f} s'}; to 99 %: "
                f"{one['trials_to_0.99']:.0f}; all {one['seconds']:.0f} s, of them thinking "
                f"{one['thinking_seconds']:.1f}"
            )
            if theirs is not None and one is not theirs:
                taken = reached(one, theirs["final"])
                share = "never" if taken is None else f"after {taken / theirs['seconds']:.3f}"
                print(f"  {'':12} at MetaSchedule's final result {share} of its time")
        for way, score in found["cost_model"].items():
            print(
                f"  cost model, {way}: pairs {score['pairs']:.2f}, recall@8 {score['recall']:.2f}, "
                f"best by score {score['top1']:.2f}, best of 8 {score['topk']:.2f}"
            )
        claims |= claims_of(name, found["samplers"])
    return claims


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        settings = settings_of(options)
        content: dict[str, Any] = {
            "benchmark": "search", **describe(options.threads), "settings": settings,
            "workloads": {},
        }  # fmt: skip
        run(options, content)
    except UserError as error:
        print(f"benchmarks.search: {error}", file=sys.stderr)
        return 2
    content["claims"] = told(content)
    write_json(options.json, content)
    rows = {}
    for name, found in content["workloads"].items():
        samplers = found["samplers"].items()
        rows[name] = (
            {s: (range(1, len(one["curve"]) + 1), one["curve"]) for s, one in samplers},
            {s: (one["clock"], one["curve"]) for s, one in samplers},
        )
    options.svg.write_text(plot(rows))
    for claim, holds in content["claims"].items():
        print(f"{'holds' if holds else 'MISSED'}: {claim}")
    print(f"{options.svg} shows the curves")
    return 0 if all(content["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
