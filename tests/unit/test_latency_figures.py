"""What benchmarks.latency says of its figures: promises, what is left out, the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import InputError
from benchmarks.latency import claims, main, spent
from benchmarks.latency_table import BEGIN, END, fill_readme, markdown
from tests.unit.database_samples import TARGET, open_with_run, record
from tests.unit.database_samples import measured as measured_in

MODEL = "m" * 32


def engine(name: str, best: float, ratio: float | None = None, apart: float = 1e-6) -> Any:
    taken = {"p50": best * 1.2, "p95": best * 1.5, "p99": best * 2, "best": best, "count": 100}
    compared = {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1} if ratio else None
    difference = {"output": "y", "absolute": apart, "relative": apart} if ratio else None
    return {
        "name": name,
        "version": "1.2",
        "latency": taken,
        "ratio": compared,
        "difference": difference,
    }


def measured(default: float, tuned: float, peer: float, **more: Any) -> dict[str, Any]:
    return {
        "status": "measured",
        "builds": {
            "default": {"tasks": "0 of 2 tasks tuned, 2 default", "seconds": 9.0},
            "tuned": {"tasks": "2 of 2 tasks tuned", "seconds": 8.0},
        },
        "engines": {
            "tuned": engine("tuned", tuned),
            "default": engine("default", default, default / tuned),
            "onnxruntime": engine("onnxruntime", peer, peer / tuned),
        },
        "search": {"runs": 1, "seconds": 90.0, "trials": 77},
        "missing_peers": {},
        "busy_cores_of_others": 0.0,
        **more,
    }


def content(**models: Any) -> dict[str, Any]:
    target = {"model": "Some CPU", "features": ["+avx2"], "threads": 2, "cores": 2}
    return {
        "date": "2026-11-24T10:00:00+00:00",
        "target": target,
        "versions": {"apache-tvm": "0.27"},
        "settings": {"tune": True},
        "models": models,
    }


def test_promises_are_judged() -> None:
    assert all(claims(measured(2.0, 1.0, 1.0)).values())
    slow = claims(measured(4.0, 1.0, 1.0))
    assert not slow["default_within_3x_of_onnxruntime"] and slow["tuned_not_slower_than_default"]
    assert not claims(measured(0.8, 1.0, 1.0))["tuned_not_slower_than_default"]


def test_outputs_that_differ_or_are_not_numbers_are_no_agreement() -> None:
    for apart in (0.1, float("nan")):
        found = measured(1.0, 1.0, 1.0)
        found["engines"]["onnxruntime"] = engine("onnxruntime", 1.0, 1.0, apart)
        assert not claims(found)["agrees_with_onnxruntime"]


def test_what_disturbs_or_is_missing_is_said_beside_the_figures() -> None:
    lost = {"openvino": "openvino is not installed: run pip install openvino"}
    text = markdown(
        content(
            cls=measured(1e-3, 9e-4, 2e-3, missing_peers=lost, busy_cores_of_others=1.4),
            minilm={"status": "skipped", "reason": "MiniLM needs its weights"},
        )
    )
    assert "| cls | tuned | 1.08 |" in text
    assert "| minilm | skipped: MiniLM needs its weights |" in text
    assert "1.4 of 2 (cls)" in text
    assert "openvino is not installed" in text
    assert "77 trials in 1.5 min" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_figures_go_between_the_marks_and_replace_those_of_before(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "latency.json"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    results.write_text(json.dumps(content(cls=measured(1e-3, 9e-4, 2e-3))))
    fill_readme(readme, results)
    once = readme.read_text()
    assert once.startswith(f"before\n{BEGIN}\n") and once.endswith(f"{END}\nafter\n")
    assert "old" not in once and "| cls |" in once
    fill_readme(readme, results)
    assert readme.read_text() == once


@pytest.mark.parametrize("text", ["", "{}", None])
def test_without_figures_the_readme_stays(tmp_path: Path, text: str | None) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "latency.json"
    readme.write_text(f"{BEGIN}\nold\n{END}\n")
    if text is not None:
        results.write_text(text)
    with pytest.raises(InputError):
        fill_readme(readme, results)
    assert "old" in readme.read_text()


@pytest.mark.parametrize(
    "arguments", [["--models", "vgg"], ["--peers", "abacus"], ["--time", "soon"], ["--rounds", "0"]]
)
def test_wrong_use_is_refused_with_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("benchmarks.latency: ")


def test_search_of_earlier_runs_counts_for_its_model_and_target_only(tmp_path: Path) -> None:
    path, target = tmp_path / "tuning.db", TARGET.digest
    nothing = {"runs": 0, "seconds": 0.0, "trials": 0}
    assert spent(path, MODEL, target) == nothing
    database, run = open_with_run(path)
    with database:
        for tile in (1, 2, 3):
            database.add(record(tile, measured_in(1e-3), run))
        database.add(record(1, measured_in(1e-3), run, final=True))
        # As if the run had been begun a minute before its last record, and then been killed.
        with database.transaction():
            last = "(SELECT max(time) FROM records)"
            begun = f"strftime('%Y-%m-%dT%H:%M:%f+00:00', {last}, '-60 seconds')"
            database.connection.execute(f"UPDATE runs SET started = {begun}")
    found = spent(path, MODEL, target)
    assert (found["runs"], found["trials"]) == (1, 3)
    assert found["seconds"] == pytest.approx(60, abs=0.1)
    assert spent(path, "other", target) == spent(path, MODEL, "other") == nothing
