"""Other engines in shorter numbers: ONNX Runtime's int8, OpenVINO's bfloat16 and int8 (NNCF)."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.bench.peers import onnxruntime_session, openvino_request

Arrays = Mapping[str, Any]
Run = Callable[[Arrays], dict[str, Any]]

OPSET = 17
"""Per-channel scales need 13, and models of another set are converted to this one."""


def fixed(model: Path, shapes: Mapping[str, Sequence[int]], path: Path) -> Path:
    """``model`` with its open dimensions fixed, as quantisers want it, in ``path``."""
    import onnx
    from onnx import version_converter

    from autotune.frontends.onnx_file import fix_shapes

    proto = fix_shapes(onnx.load(model), {name: tuple(shape) for name, shape in shapes.items()})
    if next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < OPSET:
        proto = version_converter.convert_version(proto, OPSET)
    onnx.save(proto, path)
    return path


def onnxruntime_int8(model: Path, samples: Sequence[Arrays], folder: Path) -> Path:
    """``model`` quantised by ``quantize_static``: QDQ, int8 weights per channel, uint8 data."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> Any:
            return next(self.left, None)

    prepared, path = folder / "prepared.onnx", folder / "onnxruntime-int8.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def openvino(model: Path, threads: int, hint: str, samples: Sequence[Arrays] = ()) -> Run:
    """What runs ``model`` with the precision ``hint``; quantised by NNCF with ``samples``."""
    import openvino as ov

    read = ov.Core().read_model(str(model))
    if samples:
        import nncf

        nncf.set_log_level("ERROR")
        names = [port.get_any_name() for port in read.inputs]
        data = nncf.Dataset(list(samples), lambda one: {name: one[name] for name in names})
        read = nncf.quantize(read, data, subset_size=len(samples))
    return openvino_request(read, threads, hint)


def peers(
    model: Path, shapes: Mapping[str, Sequence[int]], samples: Sequence[Arrays], threads: int
) -> tuple[dict[str, Run], list[str]]:
    """What runs the model in each engine, by name, and a sentence for what is missing."""
    found: dict[str, Run] = {}
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        plain = fixed(model, shapes, Path(folder) / "fixed.onnx")
        found["onnxruntime float32"] = onnxruntime_session(plain, threads)
        quantised = onnxruntime_int8(plain, samples, Path(folder))
        found["onnxruntime int8"] = onnxruntime_session(quantised, threads)
        if importlib.util.find_spec("openvino") is None:
            return found, ["openvino is not installed: run pip install 'autotune[peers]'"]
        found["openvino float32"] = openvino(plain, threads, "f32")
        found["openvino bfloat16"] = openvino(plain, threads, "bf16")
        if importlib.util.find_spec("nncf") is None:
            missing.append("nncf is not installed, so OpenVINO has no int8: run pip install nncf")
        else:
            try:
                found["openvino int8"] = openvino(plain, threads, "f32", samples)
            except Exception as error:  # NNCF refuses models with errors of every kind
                missing.append(f"nncf cannot quantise the model ({type(error).__name__}: {error})")
    return found, missing
