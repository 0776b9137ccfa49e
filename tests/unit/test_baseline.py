"""Baseline files: what is wrong with one is told, all of it, and before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.bench.baseline import (
    Baseline,
    check_copy,
    check_machine,
    copy_beside,
    machine_of,
    read_baseline,
)
from autotune.bench.check import check, update
from autotune.cli import parsing
from autotune.errors import ArtifactError, InputError, ModelError, TargetError
from autotune.runtime import file_digest
from autotune.target import named, native

MACHINE = machine_of(named("x86-64-v3", threads=2))


def values(**changes: Any) -> dict[str, Any]:
    figures = {"p50": 1e-3, "p95": 2e-3, "p99": 3e-3, "best": 9e-4, "calls": 100}
    return {
        "format": "autotune-baseline",
        "version": 1,
        "time": "2026-11-25T00:00:00+00:00",
        "artifact": {"digest": "a" * 64, "model": "cls", "model_digest": "b" * 64},
        "machine": MACHINE.model_dump(),
        "versions": {"tvm": "0.27"},
        "figures": figures | {"peak_memory": 1000, "size": 2000},
    } | changes


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "baseline.json"
    path.write_text(json.dumps(values(**changes)))
    return path


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = Baseline.model_validate(values())
    path = tmp_path / "baseline.json"
    path.write_text(made.text())
    assert read_baseline(path) == made


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    figures = values()["figures"] | {"p50": -1.0, "calls": "many", "mood": 3}
    del figures["p99"]
    path = written(tmp_path, figures=figures, version=2)
    with pytest.raises(InputError) as told:
        read_baseline(path)
    for part in ("figures.p50", "figures.calls", "figures.mood", "figures.p99", "version"):
        assert part in str(told.value)
    assert "--update" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\xff", '{"format": NaN}', "null"])
def test_what_is_no_baseline_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="not a baseline"):
        read_baseline(path)


def test_a_missing_baseline_names_update(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--update"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_baseline(tmp_path)


def test_another_machine_is_refused_with_both_named(tmp_path: Path) -> None:
    baseline = Baseline.model_validate(values())
    check_machine(tmp_path, baseline, MACHINE)
    other = MACHINE.model_copy(update={"digest": "0" * 32, "cpu": "Another"})
    with pytest.raises(TargetError, match="another machine") as told:
        check_machine(tmp_path, baseline, other)
    assert "Another" in str(told.value) and MACHINE.cpu in str(told.value)
    threads = MACHINE.model_copy(update={"digest": "0" * 32, "threads": 1})
    with pytest.raises(TargetError, match="--threads 2"):
        check_machine(tmp_path, baseline, threads)


def test_only_the_artifact_that_the_baseline_is_of_is_compared_with(tmp_path: Path) -> None:
    copy = copy_beside(tmp_path / "baseline.json")
    assert copy == tmp_path / "baseline.artifact"
    baseline = Baseline.model_validate(values())
    with pytest.raises(ArtifactError, match="--against"):
        check_copy(tmp_path, baseline, copy)
    copy.mkdir()
    (copy / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not the artifact"):
        check_copy(tmp_path, baseline, copy)
    known = values()["artifact"] | {"digest": file_digest(copy / "manifest.json")}
    check_copy(tmp_path, Baseline.model_validate(values(artifact=known)), copy)


def test_nothing_is_measured_for_what_is_no_artifact(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(ArtifactError, match="not an artifact"):
        check(tmp_path, path)
    with pytest.raises(ArtifactError, match="not an artifact"):
        update(tmp_path, path)
    with pytest.raises(InputError, match="name a file"):
        update(tmp_path, tmp_path / "baseline.artifact")
    with pytest.raises(InputError, match="more than nothing"):
        check(tmp_path, path, seconds=0.0)
    assert json.loads(path.read_text()) == values()


def test_other_inputs_or_outputs_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    manifest = {
        "format": 1,
        "model": {"name": "cls", "digest": "b" * 64},
        "inputs": [{"name": "x", "shape": [1, 3], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [1, 2], "dtype": "float32"}],
        "target": {"threads": 2},
        "files": {},
    }
    new, old = tmp_path / "new", tmp_path / "old"
    wider = [{"name": "x", "shape": [1, 4], "dtype": "float32"}]
    for folder, told in ((new, manifest), (old, manifest | {"inputs": wider})):
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps(told))
    path = written(
        tmp_path,
        artifact=values()["artifact"] | {"digest": file_digest(old / "manifest.json")},
        machine=machine_of(native(2)).model_dump(),
    )
    with pytest.raises(ModelError, match="other inputs or outputs"):
        check(new, path, against=old)


def test_shares_are_written_in_two_ways() -> None:
    assert parsing.share("latency", "5%") == parsing.share("latency", "0.05") == 0.05
    assert parsing.share("error", "1e-4") == 1e-4
    for text in ("", "%", "much", "-1%", "nan", "inf", "5 percent"):
        with pytest.raises(InputError, match="--latency"):
            parsing.share("latency", text)
