"""`autotune tune`: search schedules on this machine, and compile the best."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli import parsing
from autotune.cli.console import Interrupted, print_json, say
from autotune.cli.options import (
    DATABASE,
    DatabaseOption,
    JsonOption,
    KeyOption,
    ModelArgument,
    QuietOption,
    SizesOption,
    TargetOption,
    ThreadsOption,
)
from autotune.cli.progress import clock, reporter
from autotune.durations import milliseconds
from autotune.errors import InputError
from autotune.precision.told import told
from autotune.shares import shares_text

if TYPE_CHECKING:
    from autotune.api import TuneResult
    from autotune.graphs import GraphOutcome
    from autotune.measure.tracker import Device


def tune(
    model: ModelArgument,
    shape: SizesOption = None,
    target: TargetOption = "native",
    threads: ThreadsOption = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Measured candidates in all, with those of earlier runs.", min=1),
    ] = None,
    seconds: Annotated[
        str | None, typer.Option("--time", help="Time for the search, such as 90s, 10m, 1h30m.")
    ] = None,
    database: DatabaseOption = DATABASE,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the compiled artifact.")
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="cost-model, tpe, random or a plugin, with settings such as "
            "cost-model:epsilon=0.2.",
        ),
    ] = "cost-model",
    cost_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="What guides the sampler cost-model: xgboost, random or a plugin.",
            show_default="xgboost",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="What measures: local, rpc or a plugin.",
            show_default="local, with --rpc rpc",
        ),
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Measure on a device that this tracker knows."),
    ] = None,
    key: KeyOption = "",
    rpc_wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long a device that is gone is waited for.", min=1
        ),
    ] = 60.0,
    rpc_cc: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="The compiler that links for the device.",
            show_default="this machine's for its own kind, else the device's",
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(
            help="Cores that tuning may use; more than --threads build ahead.",
            show_default="those of --threads",
            min=1,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Measure on the hosts of this Ray cluster: HOST:PORT, or auto for this host's.",
        ),
    ] = None,
    cache: Annotated[
        str, typer.Option(help="cold or hot: where a kernel finds its weights when it is timed.")
    ] = "cold",
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="End once fast enough: 2.5ms, onnxruntime, or openvino:1.1 (times as fast).",
        ),
    ] = None,
    transfer: Annotated[
        bool, typer.Option(help="Begin with what the database knows of similar tasks.")
    ] = True,
    graph: Annotated[
        bool, typer.Option("--graph", help="Search the graph of the model as well.")
    ] = False,
    accuracy_budget: Annotated[
        str | None,
        typer.Option(
            metavar="ERROR",
            help="Allow shorter numbers that lose no more: 0.01 (relative error of every output), "
            "abs:0.05 or cosine:0.999.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Samples of the inputs, by name; int8 needs them."),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            "--eval",
            metavar="MODULE:FUNCTION",
            help="What the budget is of: a function of what runs the model, greater is better.",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="bfloat16, bfloat16x3, int8.",
            show_default="what the target is faster in",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search schedules for MODEL on this machine; run again to continue where it ended."""
    from autotune.api import tune as run

    try:
        with reporter(quiet) as told:
            result = run(
                model,
                parsing.sizes(shape or ()),
                target=target,
                trials=trials,
                seconds=parsing.duration(seconds),
                database=database,
                output=output,
                sampler=sampler,
                cost_model=cost_model,
                seed=seed,
                threads=threads,
                runner=runner,
                device=_device(rpc, key, rpc_wait, rpc_cc),
                cores=cores,
                ray=ray,
                cache=cache,
                until=until,
                transfer=transfer,
                graph=graph,
                accuracy_budget=accuracy_budget,
                calibration=calibration,
                evaluate=evaluate,
                precisions=precisions.split(",") if precisions else (),
                progress=told.progress,
                status=told.status,
            )
    except KeyboardInterrupt:
        kept = f"everything measured so far is in {database}, and the same command continues there"
        if not database.exists():
            kept = "nothing was measured yet, so nothing is kept"
        raise Interrupted(f"Interrupted: {kept}.") from None
    if as_json:
        print_json(described(result))
    if result.search.stopped == "interrupted":
        raise Interrupted(result.search.message)
    if not as_json:
        _print(result, quiet)
    missed = until is not None and result.search.stopped != "reached"
    if missed:
        say(f"The target {until} was not reached: run it again to go on.")
    if result.search.stopped == "all_failed" or missed:
        raise typer.Exit(1)


def _device(rpc: str | None, key: str, wait: float, compiler: str | None) -> Device | None:
    from autotune.measure.tracker import Device

    if rpc is not None:
        return Device(rpc, key, wait, compiler)
    if key or compiler:
        raise InputError("--key and --rpc-cc need --rpc HOST:PORT: where the device's tracker is")
    return None


def described(result: TuneResult) -> dict[str, Any]:
    """``result`` as plain values for JSON; times in seconds."""
    search = result.search
    return {
        "run": search.run,
        "stopped": search.stopped,
        "message": search.message,
        "trials": {"all": search.done, "new": search.new, "failed": dict(search.failures)},
        "seconds": search.elapsed,
        "drift": asdict(search.drift),
        "latency": search.latency,
        "baseline": search.baseline,
        "spaces": search.shares,
        "tasks": [
            {
                "workload": task.task.workload.key,
                "name": task.task.workload.name,
                "calls": task.task.calls,
                "seconds": task.seconds,
                "default_seconds": task.default_seconds,
                "trials": task.trials,
                "space": task.winner.space if task.winner else None,
                "tuned": task.tuned,
                "reason": task.reason,
            }
            for task in search.tasks
        ],
        "untunable": list(result.untunable),
        "graph": _graph(result.graph) if result.graph else None,
        "output": str(result.compiled.output) if result.compiled else None,
        "summary": result.compiled.summary if result.compiled else None,
    }


def _graph(outcome: GraphOutcome) -> dict[str, Any]:
    return {
        "kept": outcome.kept,
        "times_as_fast": outcome.times_as_fast,
        "changed": outcome.changed,
        "choices": outcome.choices,
        "precision": told(outcome.choices),
    }


def _print(result: TuneResult, quiet: bool) -> None:
    search = result.search
    if not quiet or search.stopped == "all_failed":
        say(search.message)
    if search.latency > 0:
        better = sum(task.tuned for task in search.tasks)
        print(
            f"{search.new} candidates measured in {clock(search.elapsed)}: sum of the tasks "
            f"{milliseconds(search.baseline)} -> {milliseconds(search.latency)} ms "
            f"({search.baseline / search.latency:.2f}x), {better} of {len(search.tasks)} tasks "
            "faster than their default"
        )
        print(f"time by search space: {shares_text(search.shares)}")
    if search.drift.warning:
        say(search.drift.warning)
    if result.graph is not None and (line := told(result.graph.choices)):
        print(line)
    if result.compiled is not None:
        print(f"{result.compiled.output}: {result.compiled.summary}")
