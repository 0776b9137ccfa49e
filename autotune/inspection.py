"""What a model is, and whether it can be compiled, before anything is tuned.

Heavy imports are inside the functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import InputError, ModelError

REFUSED = "not supported"

Extents = tuple[int | str, ...] | None
"""A shape as the model declares it: names, or "?", for open extents; None for an unknown rank."""


@dataclass(frozen=True)
class Value:
    """An input or output as the model declares it."""

    name: str
    shape: Extents
    dtype: str


@dataclass(frozen=True)
class Operator:
    """An operator, how often it occurs (subgraphs included), and the import stage that it needs.

    ``domain`` is empty for the standard's own.
    """

    name: str
    domain: str
    count: int
    stage: str


@dataclass(frozen=True)
class Inspection:
    """``open`` names the inputs with dimensions that have to be given before it is compiled.

    ``parameters`` is how many numbers the weights hold, ``flops`` what the products, convolutions
    and recurrences of one inference take (None where shapes are open). ``stage`` is the stage by
    which the model was imported, with its ``notes``, empty where it was not; ``reason`` then says
    why not. Nothing was compared yet: a model that imports may still be refused.
    """

    name: str
    opset: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    open: tuple[str, ...]
    operators: tuple[Operator, ...]
    parameters: int
    parameter_bytes: int
    flops: int | None
    stage: str
    notes: tuple[str, ...]
    reason: str

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Names of the operators that no stage can import."""
        return tuple(entry.name for entry in self.operators if entry.stage == REFUSED)


def inspect(
    model: str | Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Inspection:
    """Read and import the ONNX file ``model``; nothing is built and nothing is compared.

    Raises ``ModelError`` where the file is none that can be read.
    """
    import numpy as np

    from autotune.frontends import import_model
    from autotune.frontends.onnx_file import (
        declared_shape,
        fix_shapes,
        graph_inputs,
        read_onnx,
        tensors_of,
    )
    from autotune.frontends.onnx_prepare import simplify
    from autotune.frontends.onnx_weights import with_inputs

    path = Path(model)
    proto = read_onnx(path).proto
    stage, reason = "", ""
    notes: tuple[str, ...] = ()
    flops: int | None = None
    given = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    missing = tuple(
        value.name
        for value in graph_inputs(proto)
        if value.name not in given
        and ((shape := declared_shape(value)) is None or any(extent is None for extent in shape))
    )
    try:
        flops = _flops(simplify(with_inputs(fix_shapes(proto, given)))[0])
        imported = import_model(path, given)
        stage, notes = imported.stage, imported.notes
    except (ModelError, InputError) as error:
        reason = str(error)
    tensors = list(tensors_of(proto.graph))
    sizes = [int(np.prod(tensor.dims, dtype=np.int64)) for tensor in tensors]
    return Inspection(
        name=path.stem,
        opset=_opset(proto),
        inputs=tuple(_value(value) for value in graph_inputs(proto)),
        outputs=tuple(_value(value) for value in proto.graph.output),
        open=missing,
        operators=_operators(proto),
        parameters=sum(sizes),
        parameter_bytes=sum(n * _item(t) for n, t in zip(sizes, tensors, strict=True)),
        flops=flops,
        stage=stage,
        notes=notes,
        reason=reason,
    )


def _opset(proto: Any) -> int:
    return max((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), default=0)


def _value(value: Any) -> Value:
    kind = value.type.tensor_type
    shape: Extents = None
    if kind.HasField("shape"):
        shape = tuple(d.dim_value or d.dim_param or "?" for d in kind.shape.dim)
    return Value(value.name, shape, _dtype(kind.elem_type))


def _dtype(code: int) -> str:
    from onnx import helper

    try:
        return str(helper.tensor_dtype_to_np_dtype(code).name)
    except KeyError:
        return "unknown"


def _item(tensor: Any) -> int:
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return 0


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _nodes(inner)


def _operators(proto: Any) -> tuple[Operator, ...]:
    from autotune.frontends.onnx_prepare import stage_of

    functions = {(function.domain, function.name) for function in proto.functions}
    counts = Counter((node.domain, node.op_type) for node in _nodes(proto.graph))
    found = []
    for (domain, name), count in sorted(counts.items(), key=lambda item: (-item[1], item[0][1])):
        standard = "" if domain == "ai.onnx" else domain
        own = (domain, name) in functions
        stage = "inlined" if own else stage_of(name, standard, _opset(proto)) or REFUSED
        found.append(Operator(name, standard, count, stage))
    return tuple(found)


def _flops(proto: Any) -> int | None:
    """Two for each multiplication that is added up, in the products of ``proto``."""
    import math

    from autotune.frontends.onnx_rewrites.base import Facts

    facts = Facts(proto)
    total = 0
    for node in proto.graph.node:
        shapes = [facts.shape(name) if name else () for name in node.input]
        result = facts.shape(node.output[0]) if node.output[0] else None
        kind = node.op_type.removeprefix("QLinear").removesuffix("Integer")
        if kind not in ("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"):
            continue
        weight = shapes[3] if node.op_type.startswith("QLinear") else shapes[1]
        if weight is None or shapes[0] is None or (result is None and kind not in _RECURRENT):
            return None
        if kind == "Conv":
            assert result is not None
            total += 2 * math.prod(result) * math.prod(weight[1:])
        elif kind == "ConvTranspose":
            total += 2 * math.prod(shapes[0]) * math.prod(weight[1:])
        elif kind == "MatMul":
            assert result is not None
            total += 2 * math.prod(result) * shapes[0][-1]
        elif kind == "Gemm":
            assert result is not None
            inner = next((a.i for a in node.attribute if a.name == "transA"), 0)
            total += 2 * math.prod(result) * shapes[0][0 if inner else 1]
        else:
            rows = shapes[0][0] * shapes[0][1]
            total += 2 * rows * sum(math.prod(shape or ()) for shape in shapes[1:3])
    return total


_RECURRENT = ("LSTM", "GRU", "RNN")
