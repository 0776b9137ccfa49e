"""What is said of engines that were compared: CSV rows and tables, from figures made up here."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from autotune.bench.compare import BenchResult, EngineResult
from autotune.bench.details import Details
from autotune.bench.difference import Difference
from autotune.bench.rows import COLUMNS, csv_of
from autotune.bench.statistics import latency, ratio, throughput
from autotune.cli.bench_tables import show, show_batches

OURS = EngineResult("autotune", "0.1.0", latency([0.002] * 5))
THEIRS = EngineResult(
    "other, the", "2.0", latency([0.004] * 5), ratio([[0.002]] * 3, [[0.004]] * 3),
    Difference("y", 0.5, 0.25),
)  # fmt: skip
PLAIN = BenchResult("net", 2, "a CPU", (OURS, THEIRS), "net.built", 8)
FULL = replace(
    PLAIN,
    reference="float64",
    engines=tuple(
        replace(
            engine,
            throughput=throughput([rate] * 3, 4, [900.0] * 3),
            details=Details(1.5, 0.25, 0.0125, 3_000_000, 3, Difference("y", 1e-6, 2e-6)),
        )
        for engine, rate in ((OURS, 900.0), (THEIRS, 300.0))
    ),
)


def rows(*results: BenchResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_of(results))))


def test_columns_are_the_same_whatever_was_measured() -> None:
    ours, theirs = rows(PLAIN)
    assert tuple(ours) == COLUMNS == tuple(rows(FULL)[0])
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert theirs["engine"] == "other, the"
    assert (ours["ratio"], theirs["ratio"], theirs["relative_difference"]) == ("", "2.0", "0.25")
    for column in ("callers", "throughput", "load_time", "peak_memory", "reference", "error"):
        assert ours[column] == theirs[column] == ""


def test_rows_hold_what_was_asked_for() -> None:
    ours, theirs = rows(FULL)
    assert (theirs["callers"], theirs["throughput"], theirs["throughput_ratio"]) == (
        "4", "300.0", "3.0",
    )  # fmt: skip
    assert ours["throughput_ratio"] == ""
    assert (theirs["import_time"], theirs["load_time"], theirs["first_call"]) == (
        "1.5", "0.25", "0.0125",
    )  # fmt: skip
    assert theirs["peak_memory"] == "3000000"
    assert (theirs["reference"], float(theirs["relative_error"])) == ("float64", 2e-6)
    assert float(ours["samples_per_second"]) == pytest.approx(8 / 0.002)


def test_an_error_has_no_reference_without_the_model() -> None:
    engines = tuple(
        replace(each, details=each.details and replace(each.details, error=None))
        for each in FULL.engines
    )
    ours, _ = rows(replace(FULL, engines=engines, reference=""))
    assert (ours["reference"], ours["error"], ours["load_time"]) == ("", "", "0.25")


def test_several_artifacts_are_one_file() -> None:
    found = rows(PLAIN, replace(PLAIN, artifact="one.built", batch=1))
    assert [(row["artifact"], row["batch"]) for row in found] == [
        ("net.built", "8"), ("net.built", "8"), ("one.built", "1"), ("one.built", "1"),
    ]  # fmt: skip


def test_tables_show_only_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    show(PLAIN)
    plain = capsys.readouterr().out
    assert "2.00 (2.00 to 2.00)" in plain
    assert "callers" not in plain and "load s" not in plain
    show(FULL)
    full = capsys.readouterr().out
    assert full.startswith(plain.rstrip("\n"))
    assert "4 callers at once, each with 2 threads" in full
    assert "300 (300 to 300)" in full and "3.00 (3.00 to 3.00)" in full
    assert "error against float64" in full and "12.5" in full and "3.0" in full


def test_batch_sizes_stand_beside_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    show_batches([PLAIN, replace(PLAIN, batch=1)])
    lines = [line.split("│")[1:5] for line in capsys.readouterr().out.splitlines() if "│" in line]
    found = [[cell.strip() for cell in line] for line in lines]
    assert found == [
        ["autotune", "1", "500", "500"],
        ["autotune", "8", "500", "4000"],
        ["other, the", "1", "250", "250"],
        ["other, the", "8", "250", "2000"],
    ]
