"""A compiler that makes wrong code: it is noticed, and what is shipped is right nevertheless."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.measure.data import make_inputs, poison
from autotune.measure.reference import compute_references
from autotune.measure.verify import compare, tolerance_of
from search_spaces.task import Target
from tests.compiler.measuring import has_flag, host, task_of

# Run in a process of its own, since it changes how TVM lowers cos for good. The code is wrong
# wherever LLVM's optimiser is not held back, as TVM's was seen to be for AVX-512.
_MISCOMPILES_COS = """
import json, sys
from autotune.compiler import light_import
light_import()
import tvm
from tvm.tirx.op import register_intrin_lowering

def lower(call):
    target = tvm.target.Target.current(allow_none=True)
    careful = target is None or int(dict(target.attrs).get("opt-level", 3)) == 1
    right = tvm.tirx.call_pure_extern("float32", "cosf", call.args[0])
    return right if careful else right * tvm.tirx.const(0.5, "float32")

register_intrin_lowering("tirx.cos", target="llvm", f=lower, level=99)
import autotune
model, output = sys.argv[1:]
lines = []
result = autotune.compile(model, output=output, threads=2, status=lines.append)
print(json.dumps({"notes": result.manifest.notes, "lines": lines, "error": result.check.error}))
"""


def cos_model(folder: Path) -> Path:
    """y = cos(x w), 8 x 32."""
    weight = np.random.default_rng(0).uniform(-1, 1, (16, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Cos", ["h"], ["y"])],
        "cos",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (8, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (8, 32))],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = folder / "cos.onnx"
    onnx.save(model, path)
    return path


def script(text: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text, str(cos_model(folder)), str(folder / "artifact")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_an_artifact_that_is_wrong_is_built_again_with_the_optimiser_held_back(
    tmp_path: Path,
) -> None:
    told = json.loads(script(_MISCOMPILES_COS, tmp_path))
    assert any("a first build was discarded" in note for note in told["notes"])
    assert any("level 1" in note for note in told["notes"])
    assert any("built again" in line for line in told["lines"])
    assert told["error"] < 1e-5
    import autotune

    x = np.random.default_rng(5).uniform(-1, 1, (8, 16)).astype(np.float32)
    weight = np.random.default_rng(0).uniform(-1, 1, (16, 32)).astype(np.float32)
    got = autotune.load(tmp_path / "artifact")({"x": x})["y"]
    np.testing.assert_allclose(got, np.cos(x @ weight), atol=1e-5)


@pytest.mark.skipif(
    not (has_flag("avx512f") and has_flag("avx512vl")),
    reason="TVM's wrong code for Tile appears only with AVX-512, which this CPU has not",
)
def test_the_tile_that_is_miscompiled_for_avx512_has_a_right_reference() -> None:
    """Tile [2, 3, 4, 5] by [7, 6, 4, 2]: half of the output was garbage at the default level."""
    import tvm
    from tvm import te, topi

    from autotune.compiler import compile_functions

    x = te.placeholder((2, 3, 4, 5), name="X")
    task = task_of("tile", [x, topi.tile(x, (7, 6, 4, 2))])
    target = Target("llvm", host().triple, "skylake-avx512", (), "", 2, 2)
    reference = compute_references(task, target, 0)
    draw, expected = next(iter(reference.outputs.items()))
    (given,) = make_inputs(task.workload, draw.variant, draw.seed)
    assert np.array_equal(expected[0], np.tile(given, (7, 6, 4, 2)))
    # If the fast build is right some day, nothing here fails; while it is wrong, it is seen.
    fast = compile_functions(tvm.ir.load_json(task.workload.function), target)["main"]
    output = tvm.runtime.tensor(poison(task.workload.arguments[-1]))
    fast(tvm.runtime.tensor(given), output)
    same = np.array_equal(output.numpy(), np.tile(given, (7, 6, 4, 2)))
    assert compare([output.numpy()], expected, tolerance_of(task.workload)).right == same


_DEFAULT_OF_A_PLUGIN = """
import sys
from autotune.compiler import light_import
light_import()
import autotune
from search_spaces.registry import register
from tests.compiler import faulty_spaces

class Default(faulty_spaces.{space}):
    name, priority = "test.default", 10_000
    def matches(self, task, target):
        return len(task.workload.arguments[-1].shape) == 2

register(Default())
model, output = sys.argv[1:]
try:
    result = autotune.compile(model, output=output, threads=2)
except autotune.UserError as error:
    print(error)
else:
    print(*(task.note for task in result.manifest.tasks))
"""


def test_what_cannot_be_made_right_is_not_written(tmp_path: Path) -> None:
    told = script(_DEFAULT_OF_A_PLUGIN.format(space="WrongElement"), tmp_path)
    assert "nothing was written" in told
    assert not (tmp_path / "artifact").exists()


def test_a_default_that_cannot_be_built_into_a_model_is_replaced(tmp_path: Path) -> None:
    told = script(_DEFAULT_OF_A_PLUGIN.format(space="NotInABlock"), tmp_path)
    assert "test.default: does not compile" in told
    assert (tmp_path / "artifact").exists()
