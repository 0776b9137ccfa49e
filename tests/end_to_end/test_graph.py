"""The graph that was chosen is searched, built, locked and built again, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.artifacts import contents, manifest
from tests.end_to_end.models import autotune, transformer
from tuning_db.database import TuningDatabase
from tuning_db.graphs import graph_of


def spaces(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = manifest(artifact)["graph"]["spaces"]
    return found


def off(choices: dict[str, Any]) -> dict[str, Any]:
    """No early place is rewritten; what late spaces find follows from that, so nothing of them."""
    return {
        name: {**told, "parameters": dict.fromkeys(told["parameters"], False)}
        for name, told in choices.items()
        if name == "graph.parallel"
    }


def choose(database: Path, choices: dict[str, Any]) -> None:
    """Note ``choices`` as a search of the graph does, for the model and target in the database."""
    with TuningDatabase.open(database) as opened:
        (model,), (target,) = opened.models(), opened.targets()
        told = {"graph": {"choices": choices}}
        opened.finish_run(opened.begin_run(target.digest, model.digest, told, {}))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and its database and artifact after a search of its graph.

    What is chosen without a search is in ``default``; which graph wins is up to the measurements.
    """
    folder = tmp_path_factory.mktemp("graph")
    transformer(folder / "model.onnx")
    autotune("compile", "model.onnx", "--threads", 2, "--output", "default", folder=folder)
    assert {"graph.parallel", "graph.edges"} <= set(spaces(folder / "default"))
    words = ("--graph", "--trials", 40, "--time", "20s", "--threads", 2, "--json")
    done = autotune(
        "tune", "model.onnx", *words, "--db", "tuning.db", "--output", "artifact", folder=folder
    )
    (folder / "told.json").write_text(done.stdout)
    assert "graphs looked at" in done.stderr
    return folder


def test_what_was_found_is_built_and_remembered(tuned: Path, tmp_path: Path) -> None:
    told = json.loads((tuned / "told.json").read_text())["graph"]
    built = spaces(tuned / "artifact")
    with TuningDatabase.open(tuned / "tuning.db", False, True) as opened:
        found = graph_of(opened, opened.models()[0].digest, opened.targets()[0].digest)
    if told is None:  # nothing promised more than the default
        assert found is None and built == spaces(tuned / "default")
    else:
        assert found is not None and found["choices"] == built == told["choices"]
        assert told["kept"] == (told["times_as_fast"][1] > 1)
    options = ("--threads", 2, "--db", "tuning.db", "--output", tmp_path / "again")
    autotune("compile", "model.onnx", *options, folder=tuned)
    assert contents(tmp_path / "again") == contents(tuned / "artifact")


@pytest.mark.parametrize("plain", [False, True])
def test_choices_in_the_database_are_followed_locked_and_reproduced(
    tuned: Path, plain: bool
) -> None:
    chosen = {} if plain else off(spaces(tuned / "default"))
    choose(tuned / "tuning.db", chosen)
    options = ("--threads", 2, "--db", "tuning.db")
    autotune("compile", "model.onnx", *options, "--output", "off", folder=tuned)
    assert spaces(tuned / "off") == chosen
    autotune("lock", "model.onnx", *options, "--output", "off.lock", folder=tuned)
    autotune("compile", "model.onnx", "--lock", "off.lock", "--output", "locked", folder=tuned)
    assert contents(tuned / "locked") == contents(tuned / "off")
    # What was chosen since does not matter to what is built again.
    choose(tuned / "tuning.db", spaces(tuned / "default"))
    for source in (("--db", "tuning.db"), ("--lock", "off.lock")):
        autotune("reproduce", "off", "--model", "model.onnx", *source, folder=tuned)


def test_a_graph_space_that_is_missing_is_a_sentence(tuned: Path) -> None:
    before = spaces(tuned / "default")
    choose(tuned / "tuning.db", {"my.space": {"version": 3, "parameters": {"x": True}}})
    options = ("--threads", 2, "--db", "tuning.db", "--output", "never")
    done = autotune("compile", "model.onnx", *options, folder=tuned, check=False)
    assert done.returncode == 2 and not (tuned / "never").exists()
    assert "version 3 of the graph space my.space, and it is not installed here" in done.stderr
    choose(tuned / "tuning.db", before)


def test_the_graph_is_not_searched_over_the_network(tuned: Path) -> None:
    words = ("--graph", "--rpc", "127.0.0.1:1", "--key", "k", "--target", "aarch64")
    done = autotune("tune", "model.onnx", *words, folder=tuned, check=False)
    assert done.returncode == 2 and "--graph" in done.stderr
