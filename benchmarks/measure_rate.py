"""Candidates measured per second, ours and MetaSchedule's: ``python -m benchmarks.measure_rate``.

The same candidates go through three engines: ours, with every result verified; MetaSchedule's
LocalBuilder and LocalRunner as they are shipped; and those with one cure, processes that import the
tensor intrinsics of x86 only (the others take 18 s of CPU to parse, in every process that builds).
Engines take turns, a chunk of candidates each, after one chunk that is not counted.

What favours MetaSchedule: it is given modules that are scheduled already, while our time includes
scheduling; nothing is verified there; its search is not counted. A failed candidate counts as a
trial everywhere. Its builder starts its processes anew for each list of candidates, so the
length of that list matters to it: 64 is what its own search gives it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.candidates import Drawn, conv3x3, drawn, gemm, task_of
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe
from benchmarks.options import several

AIMS = {"shipped": 10.0, "cured": 4.0}
"""How many times as fast as each engine ours is meant to be."""

WARM = 4
"""Candidates of the chunk that is not counted: processes start, and ours computes its reference."""

WORKLOADS: dict[str, Callable[[], Any]] = {
    "gemm": lambda: gemm(1024, 1024, 1024),
    "conv": lambda: conv3x3(56, 64),
    "tiny": lambda: gemm(32, 32, 32),
}

Engine = Callable[[Sequence[Drawn]], "list[str]"]
"""Takes a chunk of candidates and returns how each ended: "measured" or why not."""


def only_x86_intrinsics() -> Callable[[], None]:
    """What a process of MetaSchedule is to do first, to be cured of the long import."""

    def start() -> None:
        from search_spaces.light import light_import

        light_import()
        import tvm.s_tir.tensor_intrin.x86  # noqa: F401

    return start  # a local function is sent as it is: the process need not find this module


class MetaSchedule:
    """Its builder and runner by their defaults, with ``initializer`` for both's processes."""

    def __init__(self, target: Any, initializer: Callable[[], None] | None = None) -> None:
        import tvm
        from tvm.s_tir.meta_schedule.builder import LocalBuilder
        from tvm.s_tir.meta_schedule.runner import LocalRunner

        self.target = tvm.target.Target(target.tvm())
        self.builder = LocalBuilder(initializer=initializer)
        self.runner = LocalRunner(initializer=initializer)

    def __call__(self, chunk: Sequence[Drawn]) -> list[str]:
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.builder import BuilderInput
        from tvm.s_tir.meta_schedule.runner import RunnerInput

        inputs = [BuilderInput(one.module, self.target) for one in chunk]
        built = self.builder.build(inputs)
        found = []
        for one, result in zip(chunk, built, strict=True):
            if result.error_msg is not None:
                found.append("build failed")
                continue
            types = ArgInfo.from_entry_func(one.module, remove_preproc=True)
            (future,) = self.runner.run([RunnerInput(result.artifact_path, "cpu", types)])
            found.append("run failed" if future.result().error_msg else "measured")
            shutil.rmtree(Path(str(result.artifact_path)).parent, ignore_errors=True)
        return found

    def settings(self) -> dict[str, Any]:
        """What a reader must know of its defaults."""
        return {
            "evaluator": self.runner.evaluator_config._asdict(),
            "build_processes": self.builder.max_workers,
            "build_timeout": self.builder.timeout_sec,
            "run_timeout": self.runner.timeout_sec,
        }


def engines_for(task: Any, runner: Any, shipped: Engine, cured: Engine) -> dict[str, Engine]:
    """The three by name; ``runner`` is ours."""

    def ours(chunk: Sequence[Drawn]) -> list[str]:
        results = runner.run(task, [one.candidate for one in chunk])
        return [result.outcome.kind for result in results]

    return {"ours": ours, "shipped": shipped, "cured": cured}


def timed(engines: dict[str, Engine], candidates: Sequence[Drawn], chunk: int) -> dict[str, Any]:
    """Seconds, trials and rates of each engine, which take turns at each chunk."""
    from autotune.bench.interleaved import settle
    from autotune.bench.statistics import ratio

    warm: dict[str, float] = {}
    ended: dict[str, Counter[str]] = {name: Counter() for name in engines}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    chunks = [candidates[i : i + chunk] for i in range(0, len(candidates), chunk)]
    for name, engine in engines.items():
        begun = time.perf_counter()
        engine(candidates[:WARM])
        warm[name] = time.perf_counter() - begun
    with Others() as others:
        for turn, part in enumerate(chunks):
            order = list(engines)
            order = order[turn % len(order) :] + order[: turn % len(order)]
            for name in order:
                time.sleep(0.3)  # threads of the processes before it spin for a while
                settle(0.004)
                begun = time.perf_counter()
                outcomes = engines[name](part)
                seconds[name].append(time.perf_counter() - begun)
                ended[name].update(outcomes)
    sizes = [len(part) for part in chunks]
    each = {n: [[s / k] for s, k in zip(seconds[n], sizes, strict=True)] for n in engines}
    return {
        "engines": {
            name: {
                "trials": sum(sizes),
                "seconds": sum(seconds[name]),
                "rate": sum(sizes) / sum(seconds[name]),
                "rates": [k / s for s, k in zip(seconds[name], sizes, strict=True)],
                "outcomes": dict(ended[name]),
                "warm_seconds": warm[name],
            }
            for name in engines
        },
        "times_as_fast": {
            name: asdict(ratio(each["ours"], each[name])) for name in engines if name != "ours"
        },
        "cores_busy": others.cores,
    }


def claims(found: dict[str, Any]) -> dict[str, bool]:
    """What is aimed at, and whether this run shows it."""
    ratios = found["times_as_fast"]
    return {f"{aim:g}x_{name}": ratios[name]["value"] >= aim for name, aim in AIMS.items()}


def print_table(content: dict[str, Any]) -> None:
    """A row for each engine of each workload."""
    from rich.console import Console
    from rich.table import Table

    table = Table("workload", "engine", "trials", "seconds", "trials/s", "by chunk", "ours is x")
    for workload, found in content["workloads"].items():
        for name, engine in found["engines"].items():
            by = found["times_as_fast"].get(name)
            rates = engine["rates"]
            spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
            table.add_row(
                workload,
                name,
                ", ".join(f"{count} {kind}" for kind, count in engine["outcomes"].items()),
                f"{engine['seconds']:.1f}",
                f"{engine['rate']:.2f}",
                f"{min(rates):.2f} to {max(rates):.2f} (sd {spread:.2f})",
                f"{by['value']:.1f} ({by['low']:.1f} to {by['high']:.1f})" if by else "",
            )
    Console().print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.measure_rate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--workloads", default="gemm,conv", help=f"of {', '.join(WORKLOADS)} (%(default)s)")
    add("--candidates", type=int, default=192, help="of each workload (default: %(default)s)")
    add("--chunk", type=int, default=64, help="candidates of one turn (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the candidates (default: %(default)s)")
    add("--threads", type=int, help="of one candidate (default: the physical cores)")
    add("--json", type=Path, default=Path("build/measure_rate.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    options.workloads = several(options.workloads, WORKLOADS, "workload")
    if options.candidates < 1 or options.chunk < 1:
        raise InputError("--candidates and --chunk must be 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 an aim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
    except UserError as error:
        print(f"benchmarks.measure_rate: {error}", file=sys.stderr)
        return 2
    if find_spec("psutil") is None or find_spec("cloudpickle") is None:
        needs = "MetaSchedule needs more than TVM brings: pip install psutil cloudpickle"
        print(f"benchmarks.measure_rate: {needs}", file=sys.stderr)
        return 2
    from autotune.measure.local import LocalRunner
    from autotune.target import resolve
    from autotune.threads import set_threads
    from search_spaces.light import light_import

    target = resolve("native", options.threads)
    set_threads(target.threads)  # MetaSchedule's processes inherit it
    light_import()
    shipped, cured = MetaSchedule(target), MetaSchedule(target, only_x86_intrinsics())
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    content: dict[str, Any] = {"benchmark": "measure_rate", **describe(options.threads)}
    content |= {"settings": settings, "metaschedule": shipped.settings(), "aims": AIMS}
    content["workloads"] = workloads = {}
    with LocalRunner(target) as runner:
        for name in options.workloads:
            task = task_of(WORKLOADS[name](), target)
            candidates = drawn(task, target, options.candidates, options.seed)
            engines = engines_for(task, runner, shipped, cured)
            workloads[name] = found = timed(engines, candidates, options.chunk)
            found["claims"] = claims(found)
            write_json(options.json, content)
    print_table(content)
    return 0 if all(all(found["claims"].values()) for found in workloads.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
