"""The pin of apache-tvm-ffi: other versions crash in ``save_json``, so a child process is asked."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import tvm
from tvm import te
a = te.placeholder((16, 16), name="a")
b = te.compute((16, 16), lambda i, j: a[i, j] + 1, name="b")
module = tvm.IRModule({"main": te.create_prim_func([a, b])})
text = tvm.ir.save_json(module)
tvm.ir.assert_structural_equal(tvm.ir.load_json(text), module)
assert tvm.ir.save_json(tvm.ir.load_json(text)) == text
"""


def test_a_module_round_trips_through_json() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (
        f"exit code {done.returncode}; apache-tvm-ffi must be 0.1.14.post1\n{done.stderr}"
    )
