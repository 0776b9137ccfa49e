"""The model set that figures are given for, made from installed packages.

``python -m benchmarks.models DIRECTORY`` writes all six. Weights are real (PP-OCRv4, MiniLM) or
seeded random ones where the onnx package ships constants, which prove nothing and get folded.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.files import user_cache

Shapes = dict[str, tuple[int, ...]]

OCR = {
    "cls": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192)),
    "rec": ("ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320)),
    "det": ("ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320)),
}
LIGHT = {"resnet50": "light_resnet50.onnx", "squeezenet": "light_squeezenet.onnx"}
NAMES = (*OCR, *LIGHT, "minilm")
LONG = "minilm-512"
"""MiniLM with 512 tokens, for what depends on the length; not one of the set."""


def model(name: str, directory: Path | None = None) -> tuple[Path, Shapes]:
    """The ONNX file of one of ``NAMES`` (or ``LONG``) and the shapes its open dimensions take.

    Made once and kept in ``directory`` (the user's cache by default). Raises ``KeyError`` for
    another name and ``FileNotFoundError``, naming what to install, where the package is missing.
    """
    if name not in (*NAMES, LONG):
        raise KeyError(f"no benchmark model {name!r}; there are {', '.join(NAMES)}")
    directory = directory or user_cache("models")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.onnx"
    if not path.exists():
        # Under another name first: a killed export must not leave half a model behind.
        draft = directory / f"{name}.{os.getpid()}.draft"
        _maker(name)(draft)
        draft.replace(path)
    return path, {"x": OCR[name][1]} if name in OCR else {}


def _package(name: str, install: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {name} is missing: pip install {install}")
    return Path(spec.origin).parent


def _maker(name: str) -> Callable[[Path], None]:
    if name in OCR:
        return lambda path: _fix_ocr(name, path)
    if name in LIGHT:
        return lambda path: _randomise(LIGHT[name], path)

    from benchmarks.minilm import export

    return lambda path: export(path, length=512 if name == LONG else 128)


def _fix_ocr(name: str, path: Path) -> None:
    folder = _package("rapidocr_onnxruntime", "--no-deps rapidocr-onnxruntime")
    path.write_bytes((folder / "models" / OCR[name][0]).read_bytes())


def _randomise(file: str, path: Path) -> None:
    """Replace constant-valued weights by seeded random ones of the scale their use asks for."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    source = _package("onnx", "onnx") / "backend" / "test" / "data" / "light" / file
    proto = onnx.load(source)
    graph = proto.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            known[node.output[0]] = np.empty(known[node.input[0]], np.float32)
    generator = np.random.default_rng(20)
    weights = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in known and name not in weights and node.op_type in ROLES:
                role = ROLES[node.op_type][position]
                weights[name] = _draw(role, known[name].shape, generator)
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used and t.name not in weights]
    inputs = [value for value in graph.input if value.name not in known]
    for repeated, values in ((graph.node, nodes), (graph.initializer, kept), (graph.input, inputs)):
        values = [type(value).FromString(value.SerializeToString()) for value in values]
        del repeated[:]
        repeated.extend(values)
    graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    proto.ir_version = max(proto.ir_version, 4)  # from 4 on initializers need not be inputs
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


ROLES = {
    "Conv": ("data", "weight", "shift"),
    "Gemm": ("data", "weight", "shift"),
    "BatchNormalization": ("data", "scale", "shift", "shift", "variance"),
}


def _draw(role: str, shape: tuple[int, ...], generator: Any) -> Any:
    import numpy as np

    if role == "weight":
        fan_in = int(np.prod(shape[1:]))
        values = generator.normal(0.0, (2.0 / fan_in) ** 0.5, shape)
    elif role == "shift":
        values = generator.normal(0.0, 0.1, shape)
    else:
        # Below one: sixteen residual additions would otherwise saturate the softmax.
        low, high = {"scale": (0.3, 0.9), "variance": (0.6, 1.4)}[role]
        values = generator.uniform(low, high, shape)
    return values.astype(np.float32)


def main(arguments: list[str]) -> int:
    """Write every model of the set into the directory given."""
    if len(arguments) != 1:
        print("usage: python -m benchmarks.models DIRECTORY", file=sys.stderr)
        return 2
    for name in NAMES:
        path, shapes = model(name, Path(arguments[0]))
        print(name, path, shapes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
