"""The ONNX frontend: a file becomes a Relax module with weights bound and every shape fixed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import ModelError
from autotune.frontends.base import Frontend, ImportedModel, TensorSpec, path_of
from autotune.frontends.onnx_bfloat16 import rounding
from autotune.frontends.onnx_blame import first_difference
from autotune.frontends.onnx_contrib.embeddings import TABLES
from autotune.frontends.onnx_file import (
    declared_shape,
    digest_of_import,
    fix_shapes,
    graph_inputs,
    read_onnx,
    tensors_of,
)
from autotune.frontends.onnx_prepare import STAGES, import_prepared, simplified
from autotune.frontends.onnx_reference import OnnxReference
from autotune.frontends.onnx_weights import bound, mapped, outline, with_inputs

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays

EMBEDDINGS = ("EmbedLayerNormalization", "QEmbedLayerNormalization")
"""Operators that look words, sentences and places up in ``TABLES``."""

PASS_THROUGH = frozenset(["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose"])


class OnnxFrontend(Frontend):
    """Files of ONNX, whatever they are called."""

    name = "onnx"
    reads = "ONNX files (.onnx)"

    def takes(self, source: Any) -> bool:
        """By the suffix, or the first field of the format, its version."""
        path = path_of(source)
        if path is None:
            return False
        if path.suffix.lower() == ".onnx":
            return True
        try:
            with path.open("rb") as file:
                return file.read(1) == b"\x08"
        except OSError:
            return False

    def load(self, source: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
        """See ``import_onnx``."""
        return import_onnx(Path(source), input_shapes)


def import_onnx(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
    """Import the ONNX file ``path``; ``input_shapes`` fixes the dimensions it leaves open.

    Raises ``ModelError`` where the file or its operators are at fault and ``InputError`` where the
    shapes are.
    """
    return _imported(_Model(path, input_shapes), 0)


def digest_of_onnx(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The digest that ``import_onnx`` gives the same; raises what that does for file and shapes."""
    file = read_onnx(path)
    inputs = _inputs(fix_shapes(file.proto, input_shapes))
    return digest_of_import(file.digest, {spec.name: spec.shape for spec in inputs})


class _Model:
    """A file and the shapes it is compiled for. It is read whenever its graph is asked for.

    A graph holds every weight, and once it is imported it is seldom needed again.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path, self.shapes, self.digest = path, shapes, ""

    def graph(self) -> Any:
        """The model with its shapes fixed, anew; raises ``ModelError`` and ``InputError``."""
        file = read_onnx(self.path)
        if self.digest not in ("", file.digest):
            raise ModelError(f"{self.path} was changed while it was compiled: begin again")
        self.digest = file.digest
        return fix_shapes(file.proto, self.shapes)

    def simplified(self) -> Any:
        """The model that is imported where no cure is needed."""
        return simplified(lambda: with_inputs(self.graph()))[0]


class _Shown(_Model):
    """``model`` with other outputs: a graph that is no file."""

    def __init__(self, model: _Model, shown: Any) -> None:
        super().__init__(model.path, model.shapes)
        self.digest, self._shown = model.digest, shown

    def graph(self) -> Any:
        copy = type(self._shown)()
        copy.CopyFrom(self._shown)
        return copy


def _imported(model: _Model, stage: int) -> ImportedModel:
    """Import ``model`` by a cure from ``stage`` on."""
    path = model.path
    first = [model.graph()]
    known = type(first[0])()
    known.CopyFrom(outline(first[0]))
    inputs = _inputs(known)
    names = [value.name for value in known.graph.output]

    def source() -> Any:
        return rounding(with_inputs(first.pop() if first else model.graph()))

    prepared = import_prepared(source, with_inputs(known), path.name, stage)
    module = bound(prepared.module, mapped(known, path.parent))
    try:
        outputs = _outputs(module, names, path.name)
    except ModelError:
        if prepared.stage + 1 >= len(STAGES):
            raise
        # A later cure may know what this one leaves to the data.
        with contextlib.suppress(ModelError):
            return _imported(model, prepared.stage + 1)
        raise

    def again() -> ImportedModel | None:
        """By the next cure that works; None where there is none."""
        try:
            return _imported(model, prepared.stage + 1)
        except ModelError:
            return None

    def blame(given: Arrays) -> str:
        def alike(shown: Any) -> ImportedModel:
            return _imported(_Shown(model, shown), prepared.stage)

        # The model as it was exported speaks the user's language; but not all of it may import.
        found = first_difference(model.graph(), given, alike)
        return found or first_difference(model.simplified(), given, alike)

    return ImportedModel(
        name=path.stem,
        digest=digest_of_import(model.digest, {spec.name: spec.shape for spec in inputs}),
        module=module,
        inputs=inputs,
        outputs=outputs,
        reference=OnnxReference(path, known, model.graph, model.simplified),
        notes=prepared.notes,
        half=_has_halves(known),
        stage=STAGES[prepared.stage],
        blame=blame,
        again=again,
    )


def _inputs(proto: Any) -> tuple[TensorSpec, ...]:
    from onnx import helper

    upper = index_bounds(proto)
    specs = []
    for value in graph_inputs(proto):
        shape = declared_shape(value)
        assert shape is not None
        try:
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        except KeyError:
            raise ModelError(
                f"input {value.name} has no known dtype: export the model again"
            ) from None
        if dtype.kind not in "fiub" and dtype.name != "bfloat16":
            raise ModelError(
                f"input {value.name} holds {dtype.name}: only numbers and booleans can be compiled"
            )
        extents = tuple(extent or 0 for extent in shape)
        specs.append(TensorSpec(value.name, extents, dtype.name, upper.get(value.name, 0)))
    return tuple(specs)


def _outputs(module: Any, names: list[str], model: str) -> tuple[TensorSpec, ...]:
    from tvm import relax

    returned = module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    if len(types) != len(names):
        raise ModelError(f"{model} returns {len(types)} values for {len(names)} outputs")
    specs = []
    for name, kind in zip(names, types, strict=True):
        shape = getattr(kind, "shape", None)
        if not isinstance(kind, relax.TensorType) or shape is None:
            raise ModelError(f"output {name} of {model} is no tensor of a fixed shape: cut it off")
        try:
            extents = tuple(int(extent) for extent in shape)
        except TypeError:
            raise ModelError(
                f"the shape of output {name} of {model} depends on the data: "
                "cut the model before it"
            ) from None
        specs.append(TensorSpec(name, extents, str(kind.dtype)))
    return tuple(specs)


def _has_halves(proto: Any) -> bool:
    """Whether ``proto`` holds, takes or makes 16-bit floats."""
    from onnx import TensorProto

    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    casts = (a.i for n in proto.graph.node for a in n.attribute if a.name in ("to", "dtype"))
    values = (*proto.graph.input, *proto.graph.output)
    declared = (value.type.tensor_type.elem_type for value in values)
    held = (tensor.data_type for tensor in tensors_of(proto.graph))
    return any(code in halves for codes in (casts, declared, held) for code in codes)


def index_bounds(proto: Any) -> dict[str, int]:
    """For each input that is looked up in tables: the size of the smallest one.

    Followed through operators that move values without changing them.
    """
    sizes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    origin = {value.name: value.name for value in graph_inputs(proto)}
    bounds: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type in PASS_THROUGH and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        pairs = {"Gather": {1: 0}} | dict.fromkeys(EMBEDDINGS, TABLES)
        for place, held in pairs.get(node.op_type, {}).items():
            if max(place, held) >= len(node.input):
                continue
            index, table = node.input[place], node.input[held]
            # The last input of those in 8 bits is a scale, which is none of the model's inputs.
            if index in origin and table in sizes:
                size = sizes[table][axis]
                bounds[origin[index]] = min(size, bounds.get(origin[index], size))
    return bounds
