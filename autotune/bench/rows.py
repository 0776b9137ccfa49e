"""A comparison as a table for programs: one row an engine, the same columns whatever was measured.

Times are in seconds, memory is in bytes; a cell is empty where its figure was not asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.bench.compare import BenchResult, EngineResult

COLUMNS = (
    *("artifact", "model", "batch", "threads", "cpu", "engine", "version"),
    *("calls", "p50", "p95", "p99", "best", "samples_per_second"),
    *("ratio", "ratio_low", "ratio_high", "difference", "relative_difference"),
    *("callers", "throughput", "throughput_low", "throughput_high"),
    *("throughput_ratio", "throughput_ratio_low", "throughput_ratio_high"),
    *("import_time", "load_time", "first_call", "peak_memory"),
    *("reference", "error", "relative_error"),
)
"""In this order; new ones are added at the end."""


def rows_of(results: Sequence[BenchResult]) -> list[dict[str, Any]]:
    """Cells by column, for each engine of each artifact; columns without a figure are left out."""
    return [_row(result, engine) for result in results for engine in result.engines]


def csv_of(results: Sequence[BenchResult]) -> str:
    """The rows as CSV, below a line of column names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(results))
    return text.getvalue()


def _row(result: BenchResult, engine: EngineResult) -> dict[str, Any]:
    taken = engine.latency
    row: dict[str, Any] = {
        "artifact": result.artifact,
        "model": result.model,
        "batch": result.batch,
        "threads": result.threads,
        "cpu": result.cpu,
        "engine": engine.name,
        "version": engine.version,
        "calls": taken.count,
        "p50": taken.p50,
        "p95": taken.p95,
        "p99": taken.p99,
        "best": taken.best,
        "samples_per_second": result.samples_per_second(engine),
    }
    if ratio := engine.ratio:
        row |= {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
    if apart := engine.difference:
        row |= {"difference": apart.absolute, "relative_difference": apart.relative}
    if found := engine.throughput:
        row |= {
            "callers": found.callers,
            "throughput": found.value,
            "throughput_low": found.low,
            "throughput_high": found.high,
        }
        if engine.ratio:  # ours beside itself says nothing
            row |= {
                "throughput_ratio": found.ratio.value,
                "throughput_ratio_low": found.ratio.low,
                "throughput_ratio_high": found.ratio.high,
            }
    if known := engine.details:
        row |= {
            "import_time": known.import_time,
            "load_time": known.load_time,
            "first_call": known.first_call,
            "peak_memory": known.peak_memory,
        }
        if known.error:
            row["reference"] = result.reference
            row |= {"error": known.error.absolute, "relative_error": known.error.relative}
    return row
