"""Read an ONNX file and fix its shapes; everything that can be wrong with either is said here."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.errors import ModelError
from autotune.frontends.onnx_weights import is_apart, is_large, stay_apart, with_inputs
from autotune.frontends.shapes import Shapes, fixed_shapes


@dataclass(frozen=True)
class OnnxFile:
    """A model as read: ``proto`` holds every weight, less those that are too many for it (see
    ``onnx_weights``); ``digest`` covers all of the bytes.

    ``external`` says that weights lie in files beside ``path``.
    """

    path: Path
    proto: Any = field(repr=False)
    digest: str
    external: bool


def read_onnx(path: Path) -> OnnxFile:
    """Read ``path`` and the weight files it names; raises ``ModelError``."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.exists():
        raise ModelError(f"there is no file {path}: check the path of the model")
    if path.is_dir():
        raise ModelError(f"{path} is a directory: give the path of the .onnx file in it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): check its permissions"
        ) from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise ModelError(
            f"{path} is not an ONNX model, or only a part of one: export or copy it again"
        ) from None
    if not proto.ir_version or not proto.opset_import or not proto.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it names no version, operators or outputs")
    digest = hashlib.sha256(content)
    del content  # it holds every weight once more
    files = _external_files(path, proto)
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    if files:
        from onnx.external_data_helper import load_external_data_for_tensor

        kept = {tensor.name for tensor in stay_apart(proto)}
        try:
            for tensor in tensors_of(proto.graph):
                if is_apart(tensor) and tensor.name not in kept:
                    load_external_data_for_tensor(tensor, str(path.parent))
                    tensor.data_location = onnx.TensorProto.DEFAULT
                    del tensor.external_data[:]
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"the external weights of {path} cannot be loaded ({first_line(error)}): "
                "put the files it names beside it"
            ) from None
    _check(path, proto)
    return OnnxFile(path, proto, digest.hexdigest(), bool(files))


def _external_files(path: Path, proto: Any) -> list[Path]:
    """The weight files that ``proto`` names, in a fixed order; raises where one is not whole."""
    from onnx import TensorProto

    needed: dict[str, int] = {}
    for tensor in tensors_of(proto.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        location = entry.get("location", "")
        try:
            end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        except ValueError:
            raise ModelError(
                f"{path} does not say where in {location} its weights are: export it again"
            ) from None
        needed[location] = max(end, needed.get(location, 0))
    files = []
    for location, size in sorted(needed.items()):
        file = path.parent / location
        if not file.is_file():
            raise ModelError(
                f"{path} keeps weights in {location}, which is missing: put it into {path.parent}"
            )
        if file.stat().st_size < size:
            raise ModelError(
                f"{file} holds {file.stat().st_size:,} bytes of the {size:,} that {path.name} "
                "needs: copy it again"
            )
        files.append(file)
    return files


def tensors_of(graph: Any) -> Iterator[Any]:
    """Every weight and constant, those of subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g)


def _check(path: Path, proto: Any) -> None:
    import onnx

    if proto.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError(
            f"{path} holds 2 GiB or more of weights that are small or in its nodes, which the ONNX "
            "tools cannot pass on: split the model"
        )
    try:
        # By path where weights stay in their files, for the checker looks whether they are there.
        _check_scales(path, proto)
        apart = any(is_apart(tensor) for tensor in proto.graph.initializer)
        if apart:
            onnx.checker.check_model(str(path))
        else:
            with _outputs_shaped(proto):
                onnx.checker.check_model(with_inputs(proto, is_large))
    except onnx.checker.ValidationError as error:
        # The checker also refuses what runs everywhere, so ONNX Runtime has the last word; unless
        # it must fail for an operator of its own, which is better said by the operator's name.
        foreign = any(node.domain not in ("", "ai.onnx") for node in proto.graph.node)
        if not foreign and not _runs(path):
            raise ModelError(
                f"{path} is not a valid ONNX model ({first_line(error)}): export it again"
            ) from None


def _check_scales(path: Path, proto: Any) -> None:
    """Refuse scales for each channel from before opset 13, which had one scale for each tensor.

    ONNX Runtime takes such scales where they are of the second axis, and nothing else.
    """
    opset = max((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), default=13)
    if opset >= 13:
        return
    dims = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in ("DequantizeLinear", "QuantizeLinear") or node.domain:
            continue
        data, scale = (dims.get(name, ()) for name in node.input[:2])
        named = any(attribute.name == "axis" for attribute in node.attribute)
        several = len(scale) == 1 and scale[0] > 1 and len(data) > 1 and data[1] != scale[0]
        if not named and not several:
            continue
        what = f"{node.op_type} {node.name or node.output[0]}"
        cure = "convert it by onnx.version_converter.convert_version(model, 13)"
        if not named:
            cure = "export it with opset 13 or later, which says the axis that they are of"
        raise ModelError(
            f"{path} has scales for each channel in {what}, which ONNX knows from opset 13 on, and "
            f"the model is of opset {opset}: {cure}"
        )


@contextlib.contextmanager
def _outputs_shaped(proto: Any) -> Iterator[None]:
    """With any shape for the outputs that declare none.

    They need not, since it follows from the inputs; but that is where the checker ends.
    """
    kinds = [v.type.tensor_type for v in proto.graph.output if v.type.HasField("tensor_type")]
    bare = [kind for kind in kinds if kind.elem_type and not kind.HasField("shape")]
    for kind in bare:
        kind.shape.SetInParent()
    try:
        yield
    finally:
        for kind in bare:
            kind.ClearField("shape")


def _runs(path: Path) -> bool:
    """Whether ONNX Runtime accepts the model, also where it lacks an operator for its types."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # Without its second attempt, which it announces on stdout.
        onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except NoKernel:  # which it looks for when it has nothing against the model
        return True
    except Exception:  # its errors share no root but Exception
        return False
    return True


def first_line(error: BaseException) -> str:
    """The first line of what ``error`` says, or its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__


def graph_inputs(proto: Any) -> list[Any]:
    """The inputs that a caller gives: old exports list the weights among the inputs too."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def fix_shapes(proto: Any, shapes: Shapes) -> Any:
    """A copy of ``proto`` whose inputs have the fixed ``shapes``; raises ``InputError``.

    Shapes need to be given only for inputs that leave a dimension open.
    """
    inputs = graph_inputs(proto)
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"input {value.name} is no tensor: only tensors can be passed in")
    fixed = fixed_shapes({value.name: declared_shape(value) for value in inputs}, shapes)
    copy = type(proto)()
    copy.CopyFrom(proto)
    for value in graph_inputs(copy):
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for extent in fixed[value.name]:
            dims.add().dim_value = extent
    if not any(entry.domain in ("", "ai.onnx") for entry in copy.opset_import):
        # A model of other operators alone, which become ONNX's own.
        copy.opset_import.add(domain="", version=17)
    # Stale open shapes would win over what follows from the inputs.
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def declared_shape(value: Any) -> tuple[int | None, ...] | None:
    """The shape a graph input declares: None for an open extent, None for an unknown rank."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in tensor.shape.dim
    )


def digest_of_import(file: str, inputs: Mapping[str, tuple[int, ...]]) -> str:
    """Digest of the bytes of a file, whose own is ``file``, and the shapes it is compiled for."""
    shapes = json.dumps({name: list(shape) for name, shape in sorted(inputs.items())})
    return hashlib.sha256(f"{file} {shapes}".encode()).hexdigest()
