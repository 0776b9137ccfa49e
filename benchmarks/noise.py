"""How well two estimators rank candidates on a disturbed machine: ``python -m benchmarks.noise``.

The same candidates of a kernel are measured in several rounds, on a quiet machine and while a
process disturbs one core with bursts of work, by two estimators: ours (single executions, their
minimum, hopeless candidates given up early; nothing is remembered from one round to the next) and
the mean of a block of at least 100 ms, MetaSchedule's default. A good estimator ranks alike in
every round, and names the same winner: the one that a long quiet measurement finds the fastest.
The finals of our search, where the leaders of a round are measured again in turn, are a third.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.candidates import Drawn, conv3x3, drawn, gemm, task_of
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe
from benchmarks.options import several

WORKLOADS: dict[str, Callable[[], Any]] = {
    "medium": lambda: conv3x3(28, 128),
    "small": lambda: gemm(64, 384, 128),
    "tiny": lambda: gemm(32, 32, 32),
}
CONDITIONS = ("quiet", "disturbed")
BLOCK = {"number": 3, "repeat": 1, "min_repeat_ms": 100}
"""MetaSchedule's default: the mean of so many executions."""

TIE = 0.01
"""Candidates within this share of the fastest one are as good as it."""

LEADERS = 8
"""Candidates that the long measurement looks at, of those that were fastest when it was quiet."""

TURNS, EXECUTIONS = 15, 40
"""The long measurement: turns of all leaders, and single executions in each."""

FINALISTS, LOOKS = 4, 3
"""The finals: candidates, and how often each is measured."""

_LOAD = """
import os, random, sys, time
os.sched_setaffinity(0, [int(sys.argv[1])])
rng = random.Random(0)
while os.getppid() == int(sys.argv[2]):
    end = time.perf_counter() + rng.uniform(0.005, 0.05)
    while time.perf_counter() < end:
        pass
    time.sleep(rng.uniform(0.005, 0.05))
"""

Seconds = dict[str, float]
"""By candidate key; a candidate that failed is left out."""


@contextmanager
def load(core: int) -> Iterator[None]:
    """Disturb ``core`` with bursts of 5 to 50 ms of work and pauses of as much."""
    process = subprocess.Popen([sys.executable, "-c", _LOAD, str(core), str(os.getpid())])
    try:
        time.sleep(0.2)  # Python starts, for which it may take any core
        yield
    finally:
        process.kill()
        process.wait()


class Built:
    """Kernels that are right, in this process, with arguments of their own."""

    def __init__(self, task: Any, target: Any, candidates: Sequence[Drawn]) -> None:
        import tvm

        from autotune.measure.data import make_inputs, numpy_dtype, outputs_of
        from autotune.measure.kernel import build_kernel

        inputs = [tvm.runtime.tensor(array) for array in make_inputs(task.workload, "signed")]
        outputs = [
            tvm.runtime.empty(kind.shape, str(numpy_dtype(kind.dtype)))
            for kind in outputs_of(task.workload)
        ]
        self.kernels = {}
        for one in candidates:
            kernel = build_kernel(one.module, task.workload, target)
            self.kernels[one.candidate.key] = (kernel, kernel.pack([*inputs, *outputs]))

    def block(self, key: str) -> float:
        """The mean of a block of executions, in seconds."""
        import tvm

        kernel, arguments = self.kernels[key]
        timer = kernel.library.time_evaluator(kernel.split.main, tvm.cpu(), **BLOCK)
        return float(timer(*arguments).mean)

    def singles(self, key: str, count: int) -> list[float]:
        """Seconds of single executions."""
        kernel, arguments = self.kernels[key]
        return kernel.samples(arguments, count)


def by_ours(runner: Any, task: Any, candidates: Sequence[Drawn]) -> dict[str, Any]:
    """Measurements of those that are right, by candidate key, in the order of ``candidates``."""
    from autotune.measure.outcome import Measured

    results = runner.run(task, [one.candidate for one in candidates])
    return {r.candidate.key: r for r in results if isinstance(r.outcome, Measured)}


def final(runner: Any, task: Any, candidates: Sequence[Drawn], first: Seconds) -> str | None:
    """The winner's key, after the leaders by ``first`` were measured again, in turn."""
    from autotune.search.finals import judge
    from autotune.turns import rounds_in_turn

    known = {one.candidate.key: one.candidate for one in candidates}
    leaders = [known[key] for key in sorted(first, key=lambda key: first[key])[:FINALISTS]]
    looks: dict[str, list[Any]] = {one.key: [] for one in leaders}
    for order in rounds_in_turn(leaders, LOOKS):
        for result in runner.run(task, order):
            looks[result.candidate.key].append(result)
    winner = judge(None, looks).winner
    return winner.key if winner is not None else None


def truth(built: Built, quiet: Sequence[Seconds]) -> Seconds:
    """Seconds of the leaders of all quiet rounds: medians of many executions, taken in turns."""
    best: Seconds = {}
    # Each estimator offers its own leaders, so that neither decides alone who is looked at.
    leaders: list[str] = []
    for seconds in quiet:
        leaders += sorted(seconds, key=lambda key: seconds[key])[:LEADERS]
    samples: dict[str, list[float]] = {key: [] for key in dict.fromkeys(leaders)}
    for turn in range(TURNS):
        order = list(samples)
        start = turn % max(1, len(order))
        for key in order[start:] + order[:start]:
            samples[key] += built.singles(key, EXECUTIONS)
    best.update((key, statistics.median(seen)) for key, seen in samples.items())
    return best


def agreement(rounds: Sequence[Seconds]) -> dict[str, Any]:
    """Rank correlation of each pair of rounds, over the candidates that all of them measured."""
    from scipy.stats import spearmanr

    shared = sorted(set.intersection(*(set(seconds) for seconds in rounds)))
    each = [
        float(spearmanr([a[k] for k in shared], [b[k] for k in shared]).statistic)
        for a, b in combinations(rounds, 2)
        if len(shared) > 2
    ]
    each = [value for value in each if math.isfinite(value)]
    mean = statistics.fmean(each) if each else None
    return {"candidates": len(shared), "spearman": mean, "pairs": each}


def winners(named: Sequence[str | None], true: Seconds) -> dict[str, Any]:
    """How often the true best was named, and what those that were named lose against it."""
    fastest = min(true.values())
    # What the long measurement did not look at was never near the front of a quiet round.
    lost = [true[key] / fastest - 1 if key in true else None for key in named if key is not None]
    hits = sum(loss is not None and loss <= TIE for loss in lost)
    return {"rounds": len(named), "best_named": hits, "losses": lost}


def compare(
    runner: Any, task: Any, target: Any, candidates: Sequence[Drawn], rounds: int, core: int
) -> dict[str, Any]:
    """Everything about one kernel, as JSON."""
    import numpy as np

    from autotune.bench.interleaved import settle

    right = by_ours(runner, task, candidates)
    candidates = [one for one in candidates if one.candidate.key in right]
    built = Built(task, target, candidates)
    rng = np.random.default_rng(0)
    seconds: dict[str, dict[str, list[Seconds]]] = {}
    named: dict[str, dict[str, list[str | None]]] = {}
    busy: dict[str, float | None] = {}

    def ours(order: Sequence[Drawn]) -> tuple[Seconds, str | None]:
        runner.incumbents.clear()  # a round knows nothing of the one before
        found = {k: r.outcome.seconds for k, r in by_ours(runner, task, order).items()}
        return found, final(runner, task, order, found) if found else None

    def block(order: Sequence[Drawn]) -> tuple[Seconds, str | None]:
        return {one.candidate.key: built.block(one.candidate.key) for one in order}, None

    estimators = {"ours": ours, "block_mean": block}

    def measure(condition: str) -> None:
        into = seconds[condition] = {name: [] for name in estimators}
        wins = named[condition] = {"ours": [], "block_mean": [], "ours_finals": []}
        for turn in range(rounds):
            order = [candidates[i] for i in rng.permutation(len(candidates))]
            for name in list(estimators)[:: 1 if turn % 2 == 0 else -1]:
                time.sleep(0.3)  # threads of the workers spin for a while after their last work
                settle(0.004)
                found, finalist = estimators[name](order)
                into[name].append(found)
                wins[name].append(min(found, key=lambda k, f=found: f[k]) if found else None)
                if name == "ours":
                    wins["ours_finals"].append(finalist)

    for condition in CONDITIONS:
        with Others() as others:
            if condition == "quiet":
                measure(condition)
            else:
                with load(core):
                    measure(condition)
        busy[condition] = others.cores
    time.sleep(0.3)
    true = truth(built, [s for name in estimators for s in seconds["quiet"][name]])
    return {
        "candidates": len(candidates),
        "fastest_seconds": min(true.values()),
        "as_good": sum(value <= min(true.values()) * (1 + TIE) for value in true.values()),
        "busy_cores": busy,
        "conditions": {
            condition: {
                name: (agreement(seconds[condition][name]) if name in estimators else {})
                | winners(wins, true)
                for name, wins in named[condition].items()
            }
            for condition in CONDITIONS
        },
        "truth": true,
        "seconds": seconds,
    }


def print_table(kernels: Mapping[str, Any]) -> None:
    """A row for each estimator, condition and kernel."""
    from rich.console import Console
    from rich.table import Table

    table = Table("kernel", "us", "condition", "estimator", "Spearman", "best named", "mean loss")
    for kernel, found in kernels.items():
        for condition, estimators in found["conditions"].items():
            for name, row in estimators.items():
                lost = [loss for loss in row["losses"] if loss is not None]
                rank = row.get("spearman")
                table.add_row(
                    kernel,
                    f"{found['fastest_seconds'] * 1e6:.1f}",
                    condition,
                    name,
                    "" if rank is None else f"{rank:.3f}",
                    f"{row['best_named']} of {row['rounds']}",
                    f"{statistics.fmean(lost):.1%}" if lost else "",
                )
    Console().print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.noise", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--kernels", default="medium,small", help=f"of {', '.join(WORKLOADS)} (%(default)s)")
    add("--candidates", type=int, default=40, help="of each kernel (default: %(default)s)")
    add("--rounds", type=int, default=3, help="of each condition (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the candidates (default: %(default)s)")
    add("--threads", type=int, help="of one candidate (default: the physical cores)")
    add("--json", type=Path, default=Path("build/noise.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    options.kernels = several(options.kernels, WORKLOADS, "kernel")
    if options.candidates < 3 or options.rounds < 2:
        raise InputError("--candidates must be 3 or more, --rounds 2 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 2 wrong use."""
    try:
        options = parse(arguments)
    except UserError as error:
        print(f"benchmarks.noise: {error}", file=sys.stderr)
        return 2
    from autotune.measure.local import LocalRunner
    from autotune.target import resolve
    from autotune.threads import set_threads
    from search_spaces.light import light_import

    target = resolve("native", options.threads)
    set_threads(target.threads)
    light_import()
    core = min(os.sched_getaffinity(0))
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    content: dict[str, Any] = {"benchmark": "noise", **describe(options.threads)}
    content |= {"settings": settings, "block": BLOCK, "kernels": {}}
    with LocalRunner(target) as runner:
        for name in options.kernels:
            task = task_of(WORKLOADS[name](), target)
            candidates = drawn(task, target, options.candidates, options.seed)
            found = compare(runner, task, target, candidates, options.rounds, core)
            content["kernels"][name] = found
            write_json(options.json, content)
    print_table(content["kernels"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
