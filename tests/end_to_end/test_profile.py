"""`autotune profile` on a small model: every kernel is there, and the total is the call's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.models import autotune, layers
from tests.trace_format import faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    layers(folder / "layers.onnx")
    autotune("compile", "layers.onnx", "--threads", 2, "--output", "built", folder=folder)
    return folder


def nodes(folder: Path) -> Any:
    """The nodes of the model."""
    import onnx

    return onnx.load(folder / "layers.onnx").graph.node


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, Any]:
    words = ("profile", "built", "--time", "1s", "--trace", "trace.json", "--json")
    return json.loads(autotune(*words, folder=folder).stdout)  # type: ignore[no-any-return]


def test_each_task_of_the_manifest_is_listed_with_its_calls(
    folder: Path, printed: dict[str, Any]
) -> None:
    manifest = json.loads((folder / "built" / "manifest.json").read_text())
    tasks = {task["workload"]: task for task in manifest["tasks"]}
    assert {entry["workload"]: entry["calls"] for entry in printed["entries"]} == {
        key: task["calls"] for key, task in tasks.items()
    }
    for entry in printed["entries"]:
        task = tasks[entry["workload"]]
        assert entry["origin"] == task["source"] and entry["schedule"] == task["space"]
        assert entry["bytes"] == task["bytes"] * task["calls"] > 0
        assert 0 < entry["low"] <= entry["seconds"] <= entry["high"]
        assert entry["verdict"] in ("compute", "memory", "overhead")


def test_each_call_names_the_operators_of_the_model(folder: Path, printed: dict[str, Any]) -> None:
    known = {node.name or f"{node.op_type} of {node.output[0]}" for node in nodes(folder)}
    for entry in printed["entries"]:
        assert len(entry["operators"]) == entry["calls"]
        assert all(operators and known.issuperset(operators) for operators in entry["operators"])
    manifest = json.loads((folder / "built" / "manifest.json").read_text())
    told = [call["operators"] for call in manifest["calls"]]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert [e["args"]["operators"] for e in events if e.get("cat") == "kernel"] == told


def test_artifacts_that_do_not_name_operators_are_profiled(folder: Path, tmp_path: Path) -> None:
    for name in ("lib.so", "weights.npy"):
        (tmp_path / name).write_bytes((folder / "built" / name).read_bytes())
    manifest = json.loads((folder / "built" / "manifest.json").read_text())
    del manifest["calls"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = autotune("profile", tmp_path, "--time", "1s", "--json", folder=folder)
    assert all(entry["operators"] == [] for entry in json.loads(done.stdout)["entries"])


def test_the_parts_make_the_whole(printed: dict[str, Any]) -> None:
    parts = sum(printed[name] for name in ("kernels", "runtime", "rest"))
    assert parts == pytest.approx(printed["wall"])
    assert sum(e["seconds"] for e in printed["entries"]) == pytest.approx(printed["kernels"])
    assert printed["kernels"] > 0 and printed["runtime"] > 0 and printed["cost"] > 0


def test_the_roof_is_of_a_computer(printed: dict[str, Any]) -> None:
    roof = printed["roof"]
    assert roof["peaks"]["float32"] > 1e9 and roof["start"] > 0
    assert [size for size, _ in roof["bandwidth"]] == sorted(s for s, _ in roof["bandwidth"])


def test_the_trace_is_one_that_perfetto_reads(folder: Path, printed: dict[str, Any]) -> None:
    text = (folder / "trace.json").read_text()
    assert faults(text) == []
    events = json.loads(text)["traceEvents"]
    timed = [event for event in events if event["ph"] == "X"]
    assert all(e["ts"] >= 0 and e["dur"] >= 0 and e["name"] and e["pid"] for e in timed)
    kernels = [event for event in timed if event["cat"] == "kernel"]
    assert len(kernels) == sum(entry["calls"] for entry in printed["entries"])


def test_the_table_says_all_of_it(folder: Path) -> None:
    done = autotune("profile", "built", "--time", "1s", "--top", "1", folder=folder)
    assert "This machine at best:" in done.stdout and "bound by" in done.stdout
    assert "One inference:" in done.stdout and " more" in done.stdout
    assert "operators of the model" in done.stdout


def test_an_artifact_that_does_not_name_its_kernels_is_refused(folder: Path) -> None:
    old = folder / "old"
    old.mkdir()
    manifest = json.loads((folder / "built" / "manifest.json").read_text())
    for task in manifest["tasks"]:
        del task["functions"]
    for name in ("lib.so", "weights.npy"):
        (old / name).write_bytes((folder / "built" / name).read_bytes())
    (old / "manifest.json").write_text(json.dumps(manifest))
    done = autotune("profile", "old", folder=folder, check=False)
    assert done.returncode == 2
    assert "compile it again" in done.stderr and "Traceback" not in done.stderr
