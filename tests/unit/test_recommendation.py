"""Which target is recommended: by time, by cost, and never by tasks that were left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.errors import InputError
from autotune.recommendation import recommend
from autotune.search.recording import target_row
from tests.unit.database_samples import (
    OTHER_TARGET,
    OTHER_TASK,
    TARGET,
    TASK,
    VERSIONS,
    measured,
    open_with_run,
    record,
)
from tuning_db.records import TaskRow

DIGEST = "m" * 32
PART = replace(TARGET, model="A small CPU", cores=4, threads=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two tasks of three calls each: 9 ms on TARGET, 12 ms on OTHER_TARGET, half known on PART."""
    path = tmp_path / "t.db"
    database, run = open_with_run(path)
    tasks = [TaskRow(t.workload.key, t.calls, t.flops, t.bytes) for t in (TASK, OTHER_TASK)]
    with database:
        for target, times in (
            (TARGET, (1e-3, 2e-3)),
            (OTHER_TARGET, (2e-3, 2e-3)),
            (PART, (1e-4,)),
        ):
            database.register_target(target_row(target))
            database.register_model(DIGEST, "two-layers", target.digest, tasks)
            run = database.begin_run(target.digest, DIGEST, {}, VERSIONS)
            for task, seconds in zip((TASK, OTHER_TASK), times, strict=False):
                database.add(record(1, measured(seconds), run, task=task, target=target))
    return path


def test_the_fastest_is_first_and_the_unknown_last(path: Path) -> None:
    found = recommend("two-layers", path)
    assert [entry.target for entry in found] == [t.digest for t in (TARGET, OTHER_TARGET, PART)]
    assert [entry.seconds for entry in found] == pytest.approx([9e-3, 12e-3, 3e-4])
    assert [(e.tuned, e.tasks, e.complete) for e in found] == [
        (2, 2, True),
        (2, 2, True),
        (1, 2, False),
    ]
    assert found[0].per_core == pytest.approx(1 / (9e-3 * TARGET.threads))
    assert all(entry.cost is None for entry in found)


def test_with_prices_the_cheapest_is_first(path: Path) -> None:
    prices = {TARGET.model: 0.36, OTHER_TARGET.digest[:8]: 0.036, PART.model: 0.36}
    found = recommend(DIGEST[:6], path, prices)
    assert [entry.target for entry in found] == [t.digest for t in (OTHER_TARGET, TARGET, PART)]
    # 0.36 an hour is 1e-4 a second; on 2 threads of 2, one inference runs at a time.
    assert found[1].cost == pytest.approx(1e-4 * 9e-3 * 1e6)
    assert found[2].cost == pytest.approx(1e-4 * 3e-4 * 1e6 / 4)  # four at a time


@pytest.mark.parametrize(
    ("model", "prices", "words"),
    [
        ("resnet", {}, "it knows two-layers"),
        ("nowhere.onnx", {}, "there is no file nowhere.onnx, and .* it knows two-layers"),
        ("two-layers", {"Cray": 1.0}, "--price Cray names no target"),
    ],
)
def test_what_names_nothing(path: Path, model: str, prices: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recommend(model, path, prices)


def test_two_forms_of_a_model_are_told_apart(path: Path) -> None:
    from tuning_db.database import TuningDatabase

    with TuningDatabase.open(path) as database:
        task = TaskRow(TASK.workload.key, 1, TASK.flops, TASK.bytes)
        database.register_model("a" * 32, "two-layers", TARGET.digest, [task])
    with pytest.raises(InputError, match="several forms"):
        recommend("two-layers", path)
    assert recommend("aaaa", path)[0].seconds == pytest.approx(1e-3)


def test_a_model_may_be_named_by_its_file(path: Path, tmp_path: Path) -> None:
    from autotune.frontends.onnx import digest_of_onnx
    from tuning_db.database import TuningDatabase

    file = tmp_path / "net.onnx"
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")
    ]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "net", sides[:1], sides[1:])
    onnx.save(helper.make_model(graph), file)
    with TuningDatabase.open(path) as database:
        task = TaskRow(TASK.workload.key, 1, TASK.flops, TASK.bytes)
        digest = digest_of_onnx(file, {"x": (2, 4)})
        database.register_model(digest, "net", TARGET.digest, [task])
    found = recommend(str(file), path, input_shapes={"x": (2, 4)})
    assert [entry.target for entry in found] == [TARGET.digest]
    for shapes, words in (({"x": (3, 4)}, "tune it for them first"), ({}, "x")):
        with pytest.raises(InputError, match=words):
            recommend(str(file), path, input_shapes=shapes)
    with pytest.raises(InputError, match="there is no file net"):
        recommend("net", path, input_shapes={"x": (2, 4)})


def test_the_command(path: Path) -> None:
    words = ["recommend", "two-layers", "--db", str(path), "--price", f"{TARGET.model}=0.5"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and "2 of 2" in shown.output and "1.25" in shown.output
    printed = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert [entry["cpu"] for entry in printed] == [t.model for t in (TARGET, OTHER_TARGET, PART)]
    wrong = CliRunner().invoke(app, [*words[:4], "--price", "free"])
    assert isinstance(wrong.exception, InputError)
