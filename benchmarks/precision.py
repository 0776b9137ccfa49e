"""What shorter numbers gain and lose, beside other engines': ``python -m benchmarks.precision``.

Each model is built in float32, with every sum of products in bfloat16, in three products of such
numbers, and in int8, and as "mixed": the fastest of these for each sum within a budget, which is
what OpenVINO's own bfloat16 loses on the same samples (or ``--budget``). Beside them run ONNX
Runtime and OpenVINO in float32 and in shorter numbers, in turns. Errors are relative L2 ones of the
worst output to ONNX Runtime's float32, on samples that nothing was chosen by. Schedules are
defaults, or searched for with ``--trials``. What a processor has no instructions for is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmarks.builds import checked, each_model, parser, say, tune
from benchmarks.latency import write_json
from benchmarks.models import NAMES, model

OURS = "autotune"
MIXED, FLOAT, PEER = f"{OURS} mixed", f"{OURS} float32", "openvino bfloat16"
PARTS = ("seen", "held")
SAMPLES = 8
"""Of which six are for calibration and two held back."""

BUDGET = 0.01
"""The budget where there is no OpenVINO to take it from."""

FURTHER = 0.7
"""Of the time of OpenVINO's bfloat16: the further aim."""

Runs = dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All engines on one model: times, errors, and what was chosen."""
    from autotune.bench.interleaved import interleave
    from autotune.bench.statistics import latency, ratio
    from autotune.frontends import import_model
    from autotune.frontends.sampling import sample_inputs
    from autotune.precision.budget import Budget
    from autotune.precision.samples import Samples
    from autotune.steps import resolved_target
    from benchmarks.precision_peers import peers

    target = resolved_target("native", options.threads)
    path, shapes = model(name)
    imported = import_model(path, shapes)
    drawn = [sample_inputs(imported, seed) for seed in range(SAMPLES)]
    samples = Samples(drawn[: SAMPLES - 2], drawn[SAMPLES - 2 :], given=True)
    right = {part: list(map(imported.reference, part_of(samples, part))) for part in PARTS}
    measure = Budget("relative", 0.0)

    def error(run: Any, part: str = "held") -> float:
        # An engine may compute the next results where these are.
        found = [
            {name: np.array(value) for name, value in run(sample).items()}
            for sample in part_of(samples, part)
        ]
        return measure.error(right[part], found)

    given = {spec.name: spec.shape for spec in imported.inputs}
    runs: Runs
    runs, missing = peers(path, given, samples.seen, target.threads)
    errors = {engine: error(run) for engine, run in runs.items()}
    # On the same samples both times: what OpenVINO loses differs between them as what we do.
    limits = {
        part: options.budget or (max(error(runs[PEER], part), 1e-6) if PEER in runs else BUDGET)
        for part in PARTS
    }
    limit = limits["held"]
    ours, chosen = _ours(imported, target, samples, limits, options)
    errors |= {engine: error(run) for engine, run in ours.items()}
    runs = {**ours, **runs}
    first = samples.held[0]
    timed = {engine: (lambda run=run: run(first)) for engine, run in runs.items()}
    times = interleave(timed, seconds=options.seconds, rounds=options.rounds)
    base = PEER if PEER in times else "onnxruntime float32"
    return {
        "budget": limit,
        "base": base,
        "missing": missing,
        "engines": {
            engine: {
                "p50_ms": latency([t for turn in turns for t in turn]).p50 * 1e3,
                "time_over_base": asdict(ratio(times[base], turns)),
                "beside_float32": asdict(ratio(turns, times[FLOAT])),
                "error": errors[engine],
                "chosen": chosen.get(engine, {}),
            }
            for engine, turns in times.items()
        },
    }


def part_of(samples: Any, part: str) -> Sequence[Mapping[str, Any]]:
    """The samples that precision is chosen by ("seen"), or those that are "held" back."""
    found: Sequence[Mapping[str, Any]] = getattr(samples, part)
    return found


def _ours(
    imported: Any,
    target: Any,
    samples: Any,
    limits: Mapping[str, float],
    options: argparse.Namespace,
) -> tuple[Runs, dict[str, dict[str, int]]]:
    """Our builds by name, and how many sums are in which precision."""
    from autotune.artifact.build import runnable
    from autotune.database import open_database
    from autotune.graph.choices import choose
    from autotune.graph.pipeline import fused, lay_out, optimise, simplified
    from autotune.graph.probe import Probe
    from autotune.measure.local import LocalRunner
    from autotune.precision.budget import Budget
    from autotune.precision.keep import Keeper
    from autotune.precision.plan import Judge, planned
    from autotune.precision.told import counted
    from autotune.search.graph import GraphTrial
    from autotune.steps import best_schedules
    from search_spaces.graph.precision import PrecisionSpace
    from search_spaces.precisions import SPLIT, kinds_of

    kinds = kinds_of(target)
    mixes: dict[str, Mapping[str, str]] = {FLOAT: {}}
    if kinds:
        probe = Probe(imported, target, kinds)
        probe.watch(samples.seen)
        for kind in kinds:
            mixes[f"{OURS} {kind}"] = {n: probe.value(n, kind) for n in probe.places}
        judge = Judge(imported, Budget("relative", limits["seen"]), None, samples)
        plan = planned(judge, target, [k for k in kinds if k != SPLIT], say)
        mixes[MIXED] = plan.mix
    runs: Runs = {}
    counts: dict[str, dict[str, int]] = {}
    database = options.work / f"{imported.name}.db"

    def build(one: Any) -> Any:
        if options.trials:
            with LocalRunner(target) as runner, open_database(database) as opened:
                tune(one, target, runner, opened, options.trials)
        return runnable(one, best_schedules(one, database if options.trials else None))

    for name, mix in mixes.items():
        module = simplified(imported, target)
        made = choose(module, target, None, lay_out, PrecisionSpace(mix) if mix else None)
        one, choices = fused(imported, target, *made), made[1]
        if name == MIXED:  # held to the budget as it is in tuning, where more may be undone

            def fuse(choices: Any) -> Any:
                return optimise(imported, target, choices)

            held_to = replace(plan, budget=Budget("relative", limits["held"]))
            held = Keeper(held_to, judge, fuse, say).within(GraphTrial(choices, 0.0, one), build)
            if held is None:
                continue
            one, choices = held.fused, held.choices
        runs[name] = build(one)
        places = choices.get(PrecisionSpace.name, {}).get("parameters", {})
        counts[name] = counted(places.values())
    return runs, counts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    made = parser("precision", __doc__, "a build", 30.0)
    made.add_argument(
        "--budget", type=float, help="of mixed (default: what OpenVINO's bfloat16 loses)"
    )
    return checked(made.parse_args(arguments), NAMES)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    done = each_model("precision", lambda: parse(arguments), measured, _show)
    if done is None:
        return 2
    options, content = done
    content["claims"] = _claims(content["models"])
    for claim, holds in content["claims"].items():
        print(f"{'holds' if holds else 'missed'}: {claim}")
    write_json(options.json, content)
    return 0 if all(content["claims"].values()) else 1


def _show(name: str, found: Mapping[str, Any]) -> None:
    for line in found["missing"]:
        print(f"  {line}")
    for engine, one in found["engines"].items():
        told = one["time_over_base"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in one["chosen"].items())
        print(
            f"{name:10} {engine:20} {one['p50_ms']:8.3f} ms, {told['value']:.2f} "
            f"({told['low']:.2f} to {told['high']:.2f}) of {found['base']}, error "
            f"{one['error']:.1e}{f' ({kinds})' if kinds else ''}",
            flush=True,
        )


def _claims(models: Mapping[str, Any]) -> dict[str, bool]:
    """What is asked of the mixed builds, on every model."""
    mixed = [
        (found["engines"][MIXED], found)
        for found in models.values()
        if MIXED in found["engines"] and found["base"] == PEER
    ]
    within = all(one["error"] <= 1.05 * found["budget"] for one, found in mixed)
    slower = [one for one, _ in mixed if one["time_over_base"]["low"] > 1]
    further = [one for one, _ in mixed if one["time_over_base"]["value"] > FURTHER]
    return {
        "mixed loses no more than OpenVINO's bfloat16": within,
        "mixed is no slower than OpenVINO's bfloat16": not slower,
        f"mixed takes at most {FURTHER:g} of its time": not further,
    }


if __name__ == "__main__":
    sys.exit(main())
