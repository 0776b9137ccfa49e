"""Artifacts are right, say where each schedule came from, and are the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import autotune
from autotune.artifact.build import build
from autotune.errors import ArtifactError
from autotune.runtime import load
from autotune.target import native
from search_spaces.registry import register, unregister
from search_spaces.task import Parameters, Target, Task
from tests.compiler.artifacts import BrokenSpace, PackingSpace, expected, fused, tuned

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(1).standard_normal((16, 64)).astype("float32")


@pytest.fixture(autouse=True)
def packing() -> Iterator[None]:
    register(PackingSpace())
    yield
    unregister("test.packing")
    unregister("test.broken")


def check(path: Path) -> None:
    np.testing.assert_allclose(load(path)({"x": X})["y"], expected(X), rtol=1e-4, atol=1e-4)


def test_tuned_and_default_tasks_are_told_apart_and_right(tmp_path: Path) -> None:
    model = fused(native(2))
    manifest = build(model, tuned(model, 16), tmp_path / "out")
    check(tmp_path / "out")
    count = len(model.tasks)
    assert manifest.summary == f"1 of {count} tasks tuned, {count - 1} default"
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text())
    first, *others = stored["tasks"]
    assert (first["source"], first["run"], first["parameters"]) == (
        "record", "some-run", {"tile": 16},
    )  # fmt: skip
    assert all(task["source"] == "default" and task["note"] == "" for task in others)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "lib.so", "manifest.json", "weights.npy",
    ]  # fmt: skip


def test_weights_are_packed_when_the_artifact_is_built() -> None:
    from autotune.artifact.build import executable

    model = fused(native(2))
    code = executable(model, tuned(model, 16)).as_text()
    assert "prepacked" in code
    assert "weight_prepack" not in code


def test_a_record_that_does_not_fit_gives_way_to_the_default(tmp_path: Path) -> None:
    model = fused(native(2))
    key = model.tasks[0].workload.key
    stale = replace(tuned(model, 16)[key], trace="[[], []")
    manifest = build(model, {key: stale}, tmp_path / "out")
    check(tmp_path / "out")
    entry = manifest.tasks[0]
    assert entry.source == "default"
    assert "in run some-run cannot be replayed" in entry.note


def test_a_default_that_does_not_compile_gives_way_to_the_next_space(tmp_path: Path) -> None:
    register(BrokenSpace())
    manifest = build(fused(native(2)), {}, tmp_path / "out")
    check(tmp_path / "out")
    assert {entry.space for entry in manifest.tasks} == {"test.packing"}
    assert all("test.broken" in entry.note for entry in manifest.tasks)


def test_without_any_space_functions_are_compiled_as_they_are(tmp_path: Path) -> None:
    model = fused(native(2))
    refused = {t.workload.key: {"test.packing": "not wanted"} for t in model.tasks}
    from search_spaces.registry import all_spaces

    for names in refused.values():
        names.update({space.name: "not wanted" for space in all_spaces()})
    manifest = build(model, {}, tmp_path / "out", refused=refused)
    check(tmp_path / "out")
    assert manifest.summary.endswith(f"{len(model.tasks)} unscheduled")


def test_two_processes_in_two_places_write_the_same_bytes(tmp_path: Path) -> None:
    from tests.end_to_end.artifacts import contents

    digests = []
    for name, seed in (("here", "1"), ("some/where/else", "2")):
        place = tmp_path / name
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-m", "tests.compiler.artifacts", str(place / "artifact")],
            check=True,
            env={**environment, "TMPDIR": str(tmp_path)},
            cwd=ROOT,
        )
        digests.append(contents(place / "artifact"))
    assert digests[0].keys() == digests[1].keys()
    for name in digests[0]:
        assert digests[0][name] == digests[1][name], f"{name} differs"


def test_weights_are_stored_once(tmp_path: Path) -> None:
    from tests.end_to_end.models import model, random_weights

    wide = 1024
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = random_weights(w=(wide, wide))
    path = model(tmp_path / "wide.onnx", [node], {"x": (4, wide)}, weights=weights)
    autotune.compile(path, output=tmp_path / "out", threads=2)
    stored = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert 4 * wide * wide < stored < 4 * wide * wide + (1 << 18)


def test_what_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    model = fused(native(2))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="not an artifact"):
        build(model, {}, tmp_path / "work")
    assert (tmp_path / "work" / "thesis.tex").read_text() == "precious"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ArtifactError, match="is a file"):
        build(model, {}, tmp_path / "file")
    with pytest.raises(ArtifactError, match="cannot be written"):
        build(model, {}, tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "work"]


def test_a_build_that_fails_its_check_leaves_the_old_artifact(tmp_path: Path) -> None:
    model = fused(native(2))
    build(model, {}, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()

    def refuse(draft: Path) -> None:
        assert (draft / "lib.so").exists()
        raise ArtifactError("wrong")

    with pytest.raises(ArtifactError, match="wrong"):
        build(model, tuned(model, 16), tmp_path / "out", check=refuse)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    build(model, tuned(model, 16), tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() != before
    check(tmp_path / "out")


def test_without_a_linker_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="install gcc or clang"):
        build(fused(native(2)), {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class ReshapingSpace(PackingSpace):
    """Changes what the function takes: the model would call it with the wrong weights."""

    name = "test.reshaping"
    priority = 3000

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            if "matmul" in schedule.get(block).name_hint:
                schedule.transform_layout(block, ("read", 1), lambda k, n: (n, k))


def test_a_schedule_that_changes_arguments_gives_way(tmp_path: Path) -> None:
    register(ReshapingSpace())
    try:
        manifest = build(fused(native(2)), {}, tmp_path / "out")
    finally:
        unregister("test.reshaping")
    check(tmp_path / "out")
    assert any("changes the arguments" in entry.note for entry in manifest.tasks)
