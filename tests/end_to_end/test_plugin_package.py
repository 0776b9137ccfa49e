"""A package of somebody else: installed, used from the command line, and taken away.

Its own tests are run by test_docs.py, as docs/plugins.md says.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from onnx import helper

from tests.end_to_end.artifacts import contents, manifest
from tests.end_to_end.environments import ROOT, Environment
from tests.end_to_end.models import model, random_weights

BROKEN = """
[project]
name = "broken-kernels"
version = "2.0"
[tool.setuptools]
py-modules = ["broken_kernels"]
[project.entry-points."autotune.search_spaces"]
"broken.space" = "broken_kernels:Space"
[project.entry-points."autotune.runners"]
"broken.runner" = "broken_kernels:Runner"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a copy of the package, a broken one, and a model of one product."""
    made = tmp_path_factory.mktemp("plugin")
    shutil.copytree(ROOT / "examples" / "plugin_package", made / "my_kernels")
    (made / "broken").mkdir()
    (made / "broken" / "pyproject.toml").write_text(BROKEN)
    (made / "broken" / "broken_kernels.py").write_text("import no_such_module_at_all\n")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model(made / "model.onnx", nodes, {"x": (2, 64)}, weights=random_weights(w=(64, 96)))
    return made


@pytest.fixture(scope="module")
def environment(folder: Path) -> Environment:
    made = Environment(folder / ".environment")
    made.run("pip", "install", "--no-deps", "./my_kernels", "./broken", folder=folder)
    return made


def listed(environment: Environment, folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    done = environment.run("autotune", "plugins", "--json", folder=folder)
    return {(entry["kind"], entry["name"]): entry for entry in json.loads(done.stdout)}


def test_it_is_listed_tuned_with_and_replayed_when_it_is_gone(
    environment: Environment, folder: Path
) -> None:
    found = listed(environment, folder)
    mine, broken = found["search space", "my.few_rows"], found["search space", "broken.space"]
    assert (mine["package"], mine["version"], mine["state"]) == ("my-kernels", "0.1.0", "loaded")
    assert (broken["package"], broken["version"], broken["state"]) == (
        "broken-kernels", "2.0", "failed",
    )  # fmt: skip
    assert broken["error"] == "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    assert found["runner", "broken.runner"]["state"] == "failed"
    # Its default is the one that is measured: its priority is the highest.
    options = ("--threads", 1, "--db", "tuning.db", "--output")
    words = ("tune", "model.onnx", "--trials", 1, *options, "tuned")
    done = environment.run("autotune", *words, folder=folder)
    skipped = [line for line in done.stderr.splitlines() if "is skipped" in line]
    assert len(skipped) == 1 and "broken.space" in skipped[0]
    (task,) = manifest(folder / "tuned")["tasks"]
    assert (task["source"], task["space"]) == ("record", "my.few_rows")
    environment.run("pip", "uninstall", "--yes", "my-kernels", "broken-kernels", folder=folder)
    gone = "import importlib.util as u; assert u.find_spec('few_rows') is None"
    environment.run(environment.python, "-P", "-c", gone, folder=folder)
    environment.run("autotune", "compile", "model.onnx", *options, "again", folder=folder)
    assert contents(folder / "again") == contents(folder / "tuned")
