"""How much memory a compilation takes: a few times the weights, wherever the model keeps them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDE, LAYERS = 4000, 4
WEIGHTS = LAYERS * WIDE * WIDE * 4

MOST = 3.8
"""Peak, in times of the weights. 3.5 of them are onnxslim's, which copies a model a few times; what
follows holds three: the module, what is packed for the kernels, and ONNX Runtime, or the file of
the artifact in memory. It was ten before anybody counted."""

CHILD = """
import sys
from pathlib import Path
from autotune.compilation import compile

def peak():
    # The maximum that getrusage knows begins with what the parent of the process held.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

small, large, output = sys.argv[1:]
compile(small, output=output + "/one", threads=1)
before = peak()
compile(large, output=output + "/two", threads=1)
print(peak() - before)
"""

LEFT = """
import gc, sys
from autotune.compilation import compile

compile(sys.argv[1], output=sys.argv[2], threads=1)
gc.collect()
print(*(type(one).__name__ for one in gc.get_objects()))
"""


def model(path: Path, wide: int, external: bool) -> Path:
    """A chain of products with square weights."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(LAYERS):
        value = rng.standard_normal((wide, wide), np.float32) / np.float32(wide**0.5)
        weights.append(numpy_helper.from_array(value, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"x{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, wide])],
        [helper.make_tensor_value_info(f"x{LAYERS}", TensorProto.FLOAT, [1, wide])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(exist_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
def test_a_compilation_holds_a_few_copies_of_the_weights(tmp_path: Path, external: bool) -> None:
    small = model(tmp_path / "small" / "small.onnx", 64, external)
    large = model(tmp_path / "large" / "large.onnx", WIDE, external)
    assert int(printed(CHILD, small, large, tmp_path)) / WEIGHTS < MOST


def test_nothing_is_left_of_the_first_model_that_a_process_compiles(tmp_path: Path) -> None:
    small = model(tmp_path / "small" / "small.onnx", 64, external=False)
    left = set(printed(LEFT, small, tmp_path / "one").split())
    assert not left & {"ImportedModel", "FusedModel", "Compiled", "Machine", "Tensor"}


def printed(script: str, *words: Path) -> str:
    """What ``script`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
