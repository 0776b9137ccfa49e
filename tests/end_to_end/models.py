"""ONNX files made on the spot, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "TERM": "dumb",
    "COLUMNS": "120",
    # What a machine that runs tests can do at best is nothing to keep.
    "XDG_CACHE_HOME": str(Path(tempfile.gettempdir()) / f"autotune-tests-{os.getuid()}"),
}
FLOAT = TensorProto.FLOAT
Shape = tuple[int | str | None, ...]


def command(*words: Any) -> list[str]:
    """``autotune`` with ``words``, for the interpreter that runs the tests."""
    return [sys.executable, "-m", "autotune.cli.main", *map(str, words)]


def autotune(
    *words: Any, folder: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with ``check`` it must exit with 0."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, cwd=folder, env=ENVIRONMENT, timeout=280
    )
    if check:
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}\n{done.stdout}"
    return done


def refused(*words: Any, folder: Path | None = None) -> str:
    """The sentence with which a command refuses ``words``."""
    done = autotune(*words, folder=folder, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, (words, done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("autotune: "), done.stderr
    return last


def model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: tuple[str, ...] = ("y",),
    weights: dict[str, Any] | None = None,
    opset: int = 17,
) -> Path:
    """Write an ONNX file of float32 inputs; returns ``path``."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(proto, path)
    return path


def random_weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """Seeded weights, scaled so that a layer keeps the magnitude of what it gets."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in shapes.items():
        fan = max(1, int(np.prod(shape[1:])))
        made[name] = (rng.standard_normal(shape) / np.sqrt(fan)).astype("float32")
    return made


def cnn(path: Path, image: Shape = (1, 3, 16, 16)) -> Path:
    """A small classifier: stem, pooling, a residual block, a head; input x, output y."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "p1"], ["a2"]),
        node("Relu", ["a2"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["l"], transB=1),
        node("Softmax", ["l"], ["y"], axis=-1),
    ]
    weights = random_weights(
        w1=(8, 3, 3, 3), b1=(8,), w2=(8, 8, 3, 3), b2=(8,), w3=(10, 8), b3=(10,)
    )
    return model(path, nodes, {"x": image}, weights=weights)


def layers(path: Path, inputs: Shape = (8, 32)) -> Path:
    """relu(x w) v: two products, imported and compiled in a moment; input x, output y."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    return model(path, nodes, {"x": inputs}, weights=random_weights(w=(32, 48), v=(48, 24)))


def transformer(path: Path, inputs: Shape = (1, 12, 32)) -> Path:
    """One block: norm, attention of two heads, norm, two layers with GELU; input x, output y."""
    node = helper.make_node
    _, length, width = inputs
    heads = [1, length, 2, width // 2]
    nodes = [
        node("LayerNormalization", ["x", "g1", "n1"], ["m1"], axis=-1),
        *(node("MatMul", ["m1", f"w{name}"], [f"f{name}"]) for name in "qkv"),
        *(node("Reshape", [f"f{name}", "heads"], [f"r{name}"]) for name in "qkv"),
        node("Transpose", ["rq"], ["tq"], perm=[0, 2, 1, 3]),
        node("Transpose", ["rk"], ["tk"], perm=[0, 2, 3, 1]),
        node("Transpose", ["rv"], ["tv"], perm=[0, 2, 1, 3]),
        node("MatMul", ["tq", "tk"], ["s"]),
        node("Mul", ["s", "scale"], ["ss"]),
        node("Softmax", ["ss"], ["p"], axis=-1),
        node("MatMul", ["p", "tv"], ["a"]),
        node("Transpose", ["a"], ["ta"], perm=[0, 2, 1, 3]),
        node("Reshape", ["ta", "flat"], ["fa"]),
        node("MatMul", ["fa", "wo"], ["o"]),
        node("Add", ["o", "x"], ["h"]),
        node("LayerNormalization", ["h", "g2", "n2"], ["m2"], axis=-1),
        node("MatMul", ["m2", "w1"], ["u"]),
        node("Erf", ["u"], ["e"]),
        node("Mul", ["u", "e"], ["ge"]),
        node("MatMul", ["ge", "w2"], ["d"]),
        node("Add", ["d", "h"], ["y"]),
    ]
    square = {f"w{name}": (width, width) for name in "qkvo"}
    weights = random_weights(
        **square, w1=(width, 2 * width), w2=(2 * width, width), n1=(width,), n2=(width,)
    )
    weights |= {name: np.ones(width, "float32") for name in ("g1", "g2")}
    weights |= {"heads": np.array(heads), "flat": np.array([1, length, width])}
    weights["scale"] = np.float32(0.25)
    return model(path, nodes, {"x": inputs}, weights=weights)
