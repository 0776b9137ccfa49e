"""How fast our kernels are, one by one: ``python -m benchmarks.kernels``.

Each distinct operator of each model is made a model of its own and goes through our passes; its
kernel is timed next to what ONNX Runtime and OpenVINO make of the same operator, and held against
the roofline bound of this machine. Schedules come from the database, and where it has none from the
default of the task's search space. With --trials the tasks of those that fall behind are tuned, and
timed again.

What is compared are kernels with their data in the caches, timed by each engine's own clock: ours
in C++, the peers' by their profiles, and no layout conversions at the border: an operator on images
has its channels last here, as it has them within our models. Engines take turns, and each turn
begins when the threads of the engine before it rest. Peers tell whole microseconds, rounded down,
so half of one is added to each; of kernels of a few microseconds trust no ratio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from autotune.profile import roofline
from autotune.profile.roofline import Roof
from benchmarks.kernel_engines import OnnxRuntime, OpenVino, Ours, Timed, counted
from benchmarks.kernel_models import Operator, channels_last, operators_of
from benchmarks.kernel_table import (
    AIM,
    OURS,
    claims,
    measured,
    print_table,
    ratio,
    share,
    summary,
)
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES, model
from benchmarks.options import several

TURN = 0.1
"""Seconds of an engine's turn."""


def prepare(one: Operator, path: Path, target: Any) -> Any:
    """The fused model of ``one``, whose file for the peers is left at ``path``."""
    import onnx

    from autotune.frontends import import_model
    from autotune.graph.pipeline import optimise

    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(one.proto, path)
    if not one.image:
        return optimise(import_model(path), target)
    ours = path.with_suffix(".last.onnx")
    onnx.save(channels_last(one.proto), ours)
    return optimise(import_model(ours), target)


def tune(tasks: Sequence[Any], target: Any, options: argparse.Namespace, told: Any) -> None:
    """Search each of ``tasks`` into the database; its trials of before count.

    Raises ``KeyboardInterrupt`` where the search was interrupted, with all it found kept.
    """
    from autotune.database import open_database, timing_of
    from autotune.measure.local import LocalRunner
    from autotune.measure.timing import TimingPlan
    from autotune.search.budget import Budget
    from autotune.search.loop import tune_tasks
    from autotune.search.settings import SearchSettings
    from search_spaces.registry import schedulable

    options.db.parent.mkdir(parents=True, exist_ok=True)
    with open_database(options.db) as opened:
        # As the database has it: what was timed with cold caches is not compared with hot ones.
        cache = timing_of(opened, target)
        settings = SearchSettings(budget=Budget(options.trials), cache=cache)
        with LocalRunner(target, plan=TimingPlan(cache=cache)) as runner:
            for task in tasks:
                if not schedulable(task, target):
                    continue
                told.status(f"tuning {task.workload.name}")
                # One by one: a common budget would go where it gains most, here each gets its own.
                done = tune_tasks([task], target, runner, opened, settings, told.progress)
                if done.stopped == "interrupted":
                    raise KeyboardInterrupt


def schedules(fused: Any, database: Path) -> dict[str, Any]:
    """The best schedules that ``database`` has for ``fused``, if there is such a file."""
    from autotune.artifact.schedules import chosen_from
    from autotune.database import open_database

    if not database.exists():
        return {}
    with open_database(database, create=False, read_only=True) as opened:
        return chosen_from(opened, fused)


def measure(one: Operator, fused: Any, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one operator, as JSON. Raises what compiling or ONNX Runtime raise."""
    import numpy as np

    from autotune.artifact.build import runnable
    from autotune.frontends.verify import TOLERANCE, scaled_error

    target, tasks = fused.target, counted(fused.tasks)
    chosen = schedules(fused, options.db)
    inputs = _inputs(one, fused)
    (result,) = runnable(fused, chosen)(inputs).values()
    if one.image:
        inputs = {name: np.ascontiguousarray(a.transpose(0, 3, 1, 2)) for name, a in inputs.items()}
        result = result.transpose(0, 3, 1, 2)
    ours = Ours(tasks, target, chosen)
    reference = OnnxRuntime(path, inputs, target.threads, options.work)
    difference = scaled_error(reference.outputs[0], result)
    row: dict[str, Any] = {
        "operator": one.label,
        "op": one.op,
        "calls": one.calls,
        # The operator's own: what we fill up to whole vectors is no work that was asked for.
        "flops": one.flops,
        "bytes": one.bytes,
        "flops_of_tasks": sum(task.calls * task.flops for task in tasks),
        "sources": ours.sources,
        "difference": difference,
        "missing_peers": {},
    }
    engines: dict[str, Timed] = {OURS: ours, "onnxruntime": reference}
    if not difference <= TOLERANCE:
        reference.rounds()  # leaves no profile behind
        reason = f"differs from ONNX Runtime by {difference:.2g} of its largest value"
        return row | {"status": "wrong", "reason": reason}
    if "openvino" in options.peers:
        try:
            engines["openvino"] = OpenVino(path, inputs, target.threads)
        except Exception as error:  # an engine has errors of its own
            row["missing_peers"]["openvino"] = f"{type(error).__name__}: {error}"
    return row | {"status": "measured", "engines": _in_turn(engines, options.rounds)}


def _inputs(one: Operator, fused: Any) -> dict[str, Any]:
    import numpy as np

    from autotune.frontends.sampling import random_inputs

    drawn = random_inputs(fused.inputs, 0)
    if one.positive:
        drawn = {name: np.abs(array) + np.float32(0.1) for name, array in drawn.items()}
    return drawn


def _in_turn(engines: dict[str, Timed], rounds: int) -> dict[str, Any]:
    from autotune.bench.interleaved import SETTLE, settle
    from autotune.turns import rounds_in_turn

    for order in rounds_in_turn(list(engines), rounds):
        for name in order:
            settle(SETTLE)
            engines[name].turn(TURN)
    found = {name: summary(engine.rounds()) for name, engine in engines.items()}
    for name in engines:
        if name != OURS:
            found[name]["ratio"] = ratio(found[OURS], found[name])
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    from autotune.bench.peers import PEERS

    parser = argparse.ArgumentParser(prog="benchmarks.kernels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--models", default="resnet50,minilm,cls,rec,det", help="by commas (default: %(default)s)")
    add("--limit", type=int, help="operators of each model, the heaviest by a guess (all)")
    add("--trials", type=int, default=0, help="candidates of tasks that fall behind (%(default)s)")
    add("--work", type=Path, default=Path("build/kernels"), help="what is made (%(default)s)")
    add("--db", type=Path, help="the tuning database (default: tuning.db in --work)")
    add("--json", type=Path, default=Path("build/kernels.json"), help="(%(default)s)")
    add("--rounds", type=int, default=5, help="turns of each engine (default: %(default)s)")
    add("--threads", type=int, help="of one kernel (default: the physical cores)")
    options = parser.parse_args(arguments)
    options.models = several(options.models, NAMES, "benchmark model")
    least = options.rounds if options.limit is None else min(options.rounds, options.limit)
    if least < 1 or options.trials < 0:
        raise InputError("--rounds and --limit must be 1 or more, --trials 0 or more")
    if options.db and not options.trials and not options.db.exists():
        raise InputError(f"there is no database {options.db}: tune into it with --trials")
    options.db = options.db or options.work / "tuning.db"
    readers = [peer for peer in PEERS.values() if not peer.torch]
    options.peers = [peer.name for peer in readers if not peer.missing]
    for peer in readers:
        if peer.missing:
            print(f"benchmarks.kernels: {peer.missing}", file=sys.stderr)
    return options


def run(options: argparse.Namespace, content: dict[str, Any], told: Any) -> None:
    """Everything, into ``content`` and the file --json. Raises ``KeyboardInterrupt``, too."""
    from autotune.target import check_measurable, resolve
    from autotune.threads import set_threads
    from search_spaces.light import light_import

    target = resolve("native", options.threads)
    check_measurable(target)
    set_threads(target.threads)
    light_import()
    models = content["models"]
    prepared: dict[str, list[tuple[Operator, Any, Path]]] = {}
    for name in options.models:
        told.status(f"{name}: looking for its operators")
        models[name] = {"status": "measured", "rows": []}
        try:
            found = operators_of(*model(name))
        except (FileNotFoundError, ModuleNotFoundError) as error:
            models[name] = {"status": "skipped", "reason": str(error)}
            continue
        except UserError as error:
            models[name] = {"status": "failed", "reason": str(error)}
            continue
        prepared[name] = []
        for index, one in enumerate(found[: options.limit]):
            path = options.work / "models" / f"{name}-{index:03d}-{one.op}.onnx"
            try:
                prepared[name].append((one, prepare(one, path, target), path))
            except Exception as error:  # TVM raises anything; one operator less
                models[name]["rows"].append(_failed(one, error))
    roof: Roof | None = None
    for name, parts in prepared.items():
        rows = models[name]["rows"]
        with Others() as others:
            told.status("measuring the machine")
            # Before each model: a roof that something disturbed would make all kernels look good.
            roof = roofline.measure(target).better(roof)
            for one, fused, path in parts:
                told.status(f"{name}: {len(rows) + 1} of {len(parts)}: {one.label}")
                try:
                    row = measure(one, fused, path, options)
                    if options.trials and misses(row, roof):
                        tune(counted(fused.tasks), target, options, told)
                        row = measure(one, fused, path, options) | {"untuned": row["engines"]}
                    rows.append(row)
                except Exception as error:  # as above
                    rows.append(_failed(one, error))
        models[name]["busy_cores_of_others"] = others.cores
        judge(content, roof)
        write_json(options.json, content)


def misses(row: dict[str, Any], roof: Roof) -> bool:
    """Whether a row falls behind: a peer is faster, or it is far from the bound of its products."""
    if row["status"] != "measured":
        return False
    ratios = [engine["ratio"]["value"] for engine in row["engines"].values() if "ratio" in engine]
    bound = asdict(roof.bound(row["flops"], row["bytes"]))
    far = bound["by"] == "compute" and share(row | {"bound": bound}) < AIM
    return far or min(ratios, default=1.0) < 1.0


def judge(content: dict[str, Any], roof: Roof) -> None:
    """Hold all that was measured by now against ``roof``."""
    content["roof"] = asdict(roof)
    for found in content["models"].values():
        for row in measured(found):
            row["bound"] = asdict(roof.bound(row["flops"], row["bytes"]))
        if "busy_cores_of_others" in found:
            found["claims"] = claims(found)


def _failed(one: Operator, error: Exception) -> dict[str, Any]:
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[-1][:200]}"
    return {"operator": one.label, "calls": one.calls, "status": "failed", "reason": reason}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed or a model failed, 2 wrong use, 130 interrupted."""
    from autotune.cli.progress import reporter

    try:
        options = parse(arguments)
        settings = settings_of(options, "work", "json")
        content = {"benchmark": "kernels", **describe(options.threads), "settings": settings}
        models: dict[str, Any] = {}
        content["models"] = models
        with reporter() as told:
            run(options, content, told)
    except UserError as error:
        print(f"benchmarks.kernels: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks.kernels: interrupted: what was tuned is kept", file=sys.stderr)
        return 130
    print_table(content)
    kept = all(all(found.get("claims", {}).values()) for found in models.values())
    return 0 if kept and all(found["status"] != "failed" for found in models.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
