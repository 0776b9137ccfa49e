"""Which timing ranks candidates like the whole model does: ``python -m benchmarks.cold_cache``.

Candidates of each task are timed by themselves, with hot and with cold caches, and inside the whole
model: the model is built once for every set of candidates, and each call in it is timed while it
runs. What is compared is the rank correlation of either timing with the times in the model, and
what would be lost by choosing the winner by it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Others, describe
from benchmarks.models import NAMES, model

ENOUGH = 4
"""Right candidates that a task needs for a rank correlation."""


def candidates_of(task: Any, target: Any, count: int, seed: int) -> list[Any]:
    """The default and valid candidates at random, of all spaces of the task."""
    import numpy as np

    from autotune.search.space import JointSpace

    joint = JointSpace(task, target)
    found = {joint.defaults()[0].key: joint.defaults()[0]}
    rng = np.random.default_rng(seed)
    for _ in range(200):
        if len(found) >= count:
            break
        candidate = joint.candidate(joint.draw(rng))
        if joint.valid(candidate):
            found.setdefault(candidate.key, candidate)
    return list(found.values())


def alone(
    tasks: Sequence[Any], chosen: Mapping[str, Sequence[Any]], target: Any, cache: str
) -> dict[str, dict[str, tuple[float, str]]]:
    """Seconds and trace of each right candidate, by workload and candidate key."""
    from autotune.measure.base import TaskNotMeasurable
    from autotune.measure.local import LocalRunner
    from autotune.measure.outcome import Measured
    from autotune.measure.timing import TimingPlan

    # No candidate is given up early: all are to be ranked.
    plan = TimingPlan(cache=cache, hopeless=1e9, behind=1e9, at_first=1e9)
    found: dict[str, dict[str, tuple[float, str]]] = {}
    with LocalRunner(target, plan=plan) as runner:
        for task in tasks:
            seen = found.setdefault(task.workload.key, {})
            try:
                for result in runner.run(task, chosen[task.workload.key]):
                    if isinstance(result.outcome, Measured):
                        seen[result.candidate.key] = (result.outcome.seconds, result.trace)
            except TaskNotMeasurable as error:
                print(f"left out: {error}", file=sys.stderr)
    return found


def inside(fused: Any, traces: Mapping[str, str], runs: int) -> dict[str, float]:
    """Seconds of one call of each workload in a model built with ``traces``: medians over runs."""
    import tvm
    from tvm.relax import VirtualMachine

    from autotune.artifact.build import executable
    from autotune.artifact.manifest import ChosenSchedule
    from autotune.frontends.sampling import random_inputs

    schedules = {key: ChosenSchedule(t, None, "", 1, {}) for key, t in traces.items()}
    machine = VirtualMachine(executable(fused, schedules), tvm.cpu())
    values = random_inputs(fused.inputs, 0)
    given = [tvm.runtime.tensor(values[spec.name]) for spec in fused.inputs]
    begun: list[float] = []
    times: dict[str, list[float]] = {}

    def instrument(function: Any, symbol: str, before: bool, result: Any, *rest: Any) -> int:
        if before:
            begun.append(time.perf_counter())
        else:
            spent = time.perf_counter() - begun.pop()
            # The name after the packing was split off has a suffix.
            name = symbol.removesuffix("_prepacked")
            if name in fused.functions:
                times.setdefault(fused.functions[name], []).append(spent)
        return 0

    for _ in range(3):
        machine["main"](*given)
    machine.set_instrument(instrument)
    for _ in range(runs):
        machine["main"](*given)
    return {key: statistics.median(seen) for key, seen in times.items()}


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One model: rank correlations of hot and cold times with those in the model, by task."""
    from scipy.stats import spearmanr

    from autotune.compiler import light_import
    from autotune.frontends import import_model
    from autotune.graph.pipeline import optimise
    from autotune.target import resolve
    from autotune.threads import set_threads

    target = resolve("native", options.threads)
    set_threads(target.threads)
    light_import()
    path, shapes = model(name)
    fused = optimise(import_model(path, shapes), target)
    tasks = sorted(fused.tasks, key=lambda t: -t.calls * max(t.flops, t.bytes))[: options.tasks]
    chosen = {t.workload.key: candidates_of(t, target, options.candidates, 0) for t in tasks}
    with Others() as others:
        hot = alone(tasks, chosen, target, "hot")
        cold = alone(tasks, chosen, target, "cold")
        whole: dict[str, dict[str, float]] = {}
        for index in range(options.candidates):
            traces = {}
            picked = {}
            for task in tasks:
                key = task.workload.key
                right = [c for c in chosen[key] if c.key in hot[key] and c.key in cold[key]]
                if index < len(right):
                    picked[key] = right[index].key
                    traces[key] = hot[key][right[index].key][1]
            if traces:
                for key, seconds in inside(fused, traces, options.runs).items():
                    if key in picked:
                        whole.setdefault(key, {})[picked[key]] = seconds
    rows = []
    for task in tasks:
        key = task.workload.key
        names = sorted(whole.get(key, {}))
        if len(names) < ENOUGH:
            continue
        there = [whole[key][n] for n in names]
        row: dict[str, Any] = {"task": task.workload.name, "bytes": task.bytes, "n": len(names)}
        for cache, times in (("hot", hot), ("cold", cold)):
            mine = [times[key][n][0] for n in names]
            winner = names[mine.index(min(mine))]
            row[cache] = {
                "correlation": float(spearmanr(mine, there).statistic),
                "regret": whole[key][winner] / min(there),
                "ratio": statistics.median(t / m for t, m in zip(there, mine, strict=True)),
                "calls": task.calls,
            }
        rows.append(row)
    return {"tasks": rows, "busy_cores_of_others": others.cores} | {
        cache: {
            "mean_correlation": statistics.fmean(row[cache]["correlation"] for row in rows),
            "mean_regret": statistics.fmean(row[cache]["regret"] for row in rows),
            "median_time_in_model_over_time_alone": statistics.median(
                row[cache]["ratio"] for row in rows
            ),
        }
        for cache in ("hot", "cold")
        if rows
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.cold_cache", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--models", default="resnet50,squeezenet,rec", help=f"of {', '.join(NAMES)} (%(default)s)")
    add("--tasks", type=int, default=12, help="the largest so many of each (%(default)s)")
    add("--candidates", type=int, default=6, help="of each task (%(default)s)")
    add("--runs", type=int, default=15, help="of the whole model, for each set (%(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    add("--json", type=Path, default=Path("build/cold_cache.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    content = {"benchmark": "cold_cache", **describe(options.threads), "models": {}}
    for name in options.models.split(","):
        content["models"][name] = found = compare(name, options)
        for cache in ("hot", "cold"):
            if cache in found:
                told = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in found[cache].items())
                print(f"{name}, {cache} caches: {told}, {len(found['tasks'])} tasks", flush=True)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
