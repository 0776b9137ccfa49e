"""Imports go one way, and the light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("autotune", "search_spaces", "cost_models", "tuning_db")
MAY_IMPORT = {
    "tuning_db": {"tuning_db"},
    "search_spaces": {"search_spaces"},
    "cost_models": {"cost_models", "search_spaces"},
    "autotune": set(OURS),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, inside functions too, with full dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they go"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", OURS)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imports(path):
            top = name.partition(".")[0]
            if top in OURS:
                assert top in MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {name}"


def test_nothing_imports_the_command_line_but_itself() -> None:
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            if (ROOT / "autotune" / "cli") in path.parents:
                continue
            for name in imports(path):
                assert not f"{name}.".startswith("autotune.cli."), path.relative_to(ROOT)


def test_the_runtime_imports_numpy_tvm_and_our_errors_only() -> None:
    allowed = {*sys.stdlib_module_names, "ml_dtypes", "numpy", "tvm", "tvm_ffi"}
    ours: dict[str, tuple[str, ...]] = {
        "dtypes.py": (),
        "machine.py": (),
        "runtime.py": ("autotune.dtypes", "autotune.errors", "autotune.machine"),
        "sized.py": ("autotune.errors", "autotune.runtime"),
    }
    for file, below in ours.items():
        for name in imports(ROOT / "autotune" / file):
            assert name.partition(".")[0] in allowed or name.startswith(below), name


@pytest.mark.parametrize("module", ["autotune", "autotune.cli.main"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    heavy = ["tvm", "optuna", "xgboost", "torch", "onnx", "onnxruntime", "scipy", "sqlite_utils"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_only_the_graph_passes_import_tvm_before_they_are_called() -> None:
    tests = ROOT / "tests" / "unit"
    names = [f"tests.unit.{path.stem}" for path in sorted(tests.glob("*.py"))]
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            passes = {ROOT / "autotune" / "graph", ROOT / "search_spaces" / "graph"}
            light = not passes & {*path.parents} or path.stem in ("base", "registry")
            if light and path.stem != "__init__":
                names.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'tvm' not in sys.modules, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
