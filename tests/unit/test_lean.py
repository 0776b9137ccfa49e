"""Torch costs only the processes that use it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tvm_is_imported_without_torch() -> None:
    code = """
import sys
from autotune.lean import without_torch
without_torch()
import tvm
from tvm import relax
print("torch" in sys.modules, type(tvm.__spec__.loader).__name__, tvm.__file__ != "")
"""
    assert ran(code) == "False SourceFileLoader True"


@needs_torch
def test_who_imports_torch_afterwards_gets_it_and_its_tensors_pass() -> None:
    code = """
from autotune.lean import without_torch
without_torch()
import tvm, torch, numpy
print(tvm.runtime.from_dlpack(torch.arange(3, dtype=torch.float32)).numpy().tolist())
"""
    assert ran(code) == "[0.0, 1.0, 2.0]"


@needs_torch
def test_where_torch_is_there_already_it_stays() -> None:
    code = """
import torch
from autotune.lean import without_torch
without_torch()
import tvm, sys
print(sys.modules["torch"] is torch)
"""
    assert ran(code) == "True"
