"""What `autotune bench` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.cli.console import table
from autotune.counts import counted
from autotune.durations import milliseconds

if TYPE_CHECKING:
    from autotune.bench import BenchResult
    from autotune.bench.difference import Difference
    from autotune.bench.statistics import Ratio


def show(result: BenchResult) -> None:
    """Print the tables of a comparison: latency, and what else was asked for."""
    rows = []
    for engine in result.engines:
        ratio, apart, taken = engine.ratio, engine.difference, engine.latency
        rows.append(
            (
                f"{engine.name} {engine.version}".strip(),
                milliseconds(taken.p50),
                milliseconds(taken.p95),
                milliseconds(taken.p99),
                _ratio(ratio) if ratio else "",
                _difference(apart),
            )
        )
    table(
        f"{result.model}, {counted(result.threads, 'thread')}, {result.cpu}",
        ("engine", "p50 ms", "p95 ms", "p99 ms", "time / ours (95 %)", "largest difference"),
        rows,
    )
    if result.precision:
        print(f"ours: {result.precision}")
    _show_throughput(result)
    _show_details(result)


def _show_throughput(result: BenchResult) -> None:
    rows = []
    callers = 0
    for engine in result.engines:
        if (found := engine.throughput) is None:
            return
        callers = found.callers
        spread = f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
        rows.append((engine.name, spread, _ratio(found.ratio) if engine.ratio else ""))
    table(
        f"{counted(callers, 'caller')} at once, each with {counted(result.threads, 'thread')}",
        ("engine", "inferences / s (95 %)", "ours / theirs (95 %)"),
        rows,
    )


def _show_details(result: BenchResult) -> None:
    rows = []
    for engine in result.engines:
        if (found := engine.details) is None:
            return
        rows.append(
            (
                engine.name,
                f"{found.import_time:.2f}",
                f"{found.load_time:.3g}",
                milliseconds(found.first_call),
                f"{found.peak_memory / 1e6:.1f}",
                _difference(found.error),
            )
        )
    against = f"error against {result.reference}" if result.reference else "error"
    table(
        "started anew, in processes of its own",
        ("engine", "import s", "load s", "first call ms", "peak MB", against),
        rows,
    )


def show_batches(results: Sequence[BenchResult]) -> None:
    """Print what artifacts of different batch sizes come to, by engine."""
    rows = []
    names = list(dict.fromkeys(engine.name for each in results for engine in each.engines))
    for name in names:
        for result in sorted(results, key=lambda result: result.batch):
            for engine in result.engines:
                if engine.name == name:
                    inferences = 1 / engine.latency.p50
                    samples = result.samples_per_second(engine)
                    rows.append((name, str(result.batch), f"{inferences:.4g}", f"{samples:.4g}"))
    table("by batch size", ("engine", "batch", "inferences / s", "samples / s"), rows)


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _difference(apart: Difference | None) -> str:
    return f"{apart.absolute:.2g} ({apart.relative:.2g})" if apart else ""
