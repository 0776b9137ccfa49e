"""What an artifact costs besides its kernels: ``python -m benchmarks.runtime``.

ResNet-50, compiled from defaults, is loaded by fresh processes: seconds of the imports, of
``autotune.load`` (digests included) and of the first call, and the process's memory. A model of one
small kernel shows what a call costs around it: ``model(inputs)`` with inputs that are read in place
and with such that are copied, beside the bare call of the virtual machine, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import describe
from benchmarks.models import model

AIM = 0.5
"""Seconds in which ResNet-50 is to be loaded."""

LOADER = r"""
import json, re, sys, time
begun = time.perf_counter()
import numpy, tvm, autotune.runtime as runtime
imported = time.perf_counter()
model = runtime.load(sys.argv[1])
loaded = time.perf_counter()
given = {spec.name: runtime.empty(spec.shape, spec.dtype) for spec in model.inputs}
for array in given.values():
    array.fill(1)
ready = time.perf_counter()
model(given)
first = time.perf_counter() - ready
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"imports": imported - begun, "load": loaded - imported, "first_call": first,
                  "peak_bytes": peak}))
"""

CALLER = """
import json, statistics, sys, time
import numpy, autotune.runtime as runtime
model = runtime.load(sys.argv[1])
(spec,) = model.inputs
aligned = runtime.empty(spec.shape, spec.dtype)
other = runtime.empty((aligned.size + 1,), spec.dtype)[1:].reshape(spec.shape)
aligned.fill(1), other.fill(1)
tensors = model.tensors({spec.name: aligned})
ways = {"bare": lambda: model.execute(tensors), "in_place": lambda: model({spec.name: aligned}),
        "copied": lambda: model({spec.name: other})}
taken = {name: [] for name in ways}
for _ in range(60):
    for name, call in ways.items():
        begun = time.perf_counter()
        for _ in range(50):
            call()
        taken[name].append((time.perf_counter() - begun) / 50)
print(json.dumps({name: statistics.median(values) for name, values in taken.items()}))
"""


def in_process(code: str, artifact: Path) -> dict[str, float]:
    """What ``code`` prints of ``artifact``, in a process that knows the runtime alone."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact)],
        check=True, capture_output=True, text=True, env=os.environ | {"TVM_USE_RUNTIME_LIB": "1"},
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def small(path: Path) -> Path:
    """A model of one kernel that takes about a microsecond."""
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 64]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def weight_bytes(path: Path) -> int:
    """Bytes of the initializers of an ONNX file."""
    import math

    import numpy as np
    import onnx

    return sum(
        math.prod(t.dims) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(t.data_type)).itemsize
        for t in onnx.load(path).graph.initializer
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.runtime", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", default="resnet50", help="of the benchmarks (default: %(default)s)")
    add("--rounds", type=int, default=7, help="processes (default: %(default)s)")
    add("--work", type=Path, default=Path("build/runtime"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/runtime.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        raise InputError("--rounds must be 1 or more")
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compile, load, call; raises ``UserError``."""
    import autotune

    options.work.mkdir(parents=True, exist_ok=True)
    path, shapes = model(options.model)
    artifact, tiny = options.work / options.model, options.work / "small"
    autotune.compile(path, shapes, output=artifact)
    autotune.compile(small(options.work / "small.onnx"), output=tiny)
    loads = [in_process(LOADER, artifact) for _ in range(options.rounds)]
    calls = [in_process(CALLER, tiny) for _ in range(options.rounds)]
    size = sum(file.stat().st_size for file in artifact.iterdir())
    return {
        "weights_bytes": weight_bytes(path),
        "artifact_bytes": size,
        "loads": loads,
        "load_seconds": statistics.median(one["load"] for one in loads),
        "around_a_call_seconds": {
            name: statistics.median(one[name] - one["bare"] for one in calls)
            for name in ("in_place", "copied")
        },
        "bare_call_seconds": statistics.median(one["bare"] for one in calls),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        found = run(options)
    except UserError as error:
        print(f"benchmarks.runtime: {error}", file=sys.stderr)
        return 2
    slowest = max(one["load"] for one in found["loads"])
    first = statistics.median(one["first_call"] for one in found["loads"])
    imports = statistics.median(one["imports"] for one in found["loads"])
    peak = max(one["peak_bytes"] for one in found["loads"])
    around = found["around_a_call_seconds"]
    print(
        f"{options.model}: loaded in {found['load_seconds']:.3f} s (at most {slowest:.3f}), after "
        f"imports of {imports:.2f} s; first call {first * 1e3:.1f} ms; peak {peak >> 20} MiB"
    )
    print(
        f"artifact {found['artifact_bytes'] / 1e6:.1f} MB for {found['weights_bytes'] / 1e6:.1f} "
        "MB of weights"
    )
    in_place, copied = (around[name] * 1e6 for name in ("in_place", "copied"))
    bare = found["bare_call_seconds"] * 1e6
    print(f"around a call of {bare:.1f} us: {in_place:.1f} us, {copied:.1f} us with copied inputs")
    claims = {
        "loaded_in_half_a_second": found["load_seconds"] < AIM,
        "weights_stored_once": found["artifact_bytes"] < 1.1 * found["weights_bytes"],
    }
    settings = {"model": options.model, "rounds": options.rounds}
    content = {"benchmark": "runtime", **describe(), "settings": settings, **found}
    write_json(options.json, {**content, "claims": claims})
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
