"""The distinct operators of a model, each as an ONNX model of that one node.

They are taken from what our frontend imports: shapes fixed, constants folded. Nothing is fused, so
that every engine gets the same operator, and weights are seeded random numbers of a sane size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PRODUCTS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
OTHERS = frozenset(
    ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum"]
    + ["ReduceMax", "Softmax", "LayerNormalization", "BatchNormalization", "InstanceNormalization"]
    + ["Resize", "Concat", "Transpose"]
)
ELEMENTWISE = frozenset(
    ["Add", "Sub", "Mul", "Div", "Sum", "Pow", "Max", "Min", "Relu", "LeakyRelu", "PRelu", "Clip"]
    + ["HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Erf", "Gelu", "Exp", "Log", "Sqrt", "Abs"]
    + ["Neg", "Reciprocal", "Softplus"]
)
LEAST_ELEMENTS = 16 * 1024
"""Elements of its result from which on an elementwise operator counts: less takes no time."""

IMAGES = frozenset(
    ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"]
    + ["Resize"]
)
"""Operators whose data our passes keep with the channels last, within a model."""

POSITIVE = frozenset(["Div", "Pow", "Log", "Sqrt", "Reciprocal"])
"""Operators that are given positive numbers: others make infinities or NaN of them."""

COMMUTATIVE = frozenset(["Add", "Mul", "Sum", "Max", "Min"])
"""Operators whose operands may change places: a constant comes last."""

SETTINGS = frozenset(["Resize", "Pow", "Clip"])
"""Operators whose constants say what to compute: those are kept, not drawn at random."""

TRAFFIC = 10.0
"""Operations that moving a byte takes as long as, roughly: for a first guess of what is heavy."""


@dataclass(frozen=True)
class Tensor:
    """An operand: its place among the distinct ones, its shape, and whether it is a constant.

    ``value`` holds the bytes of a constant that is kept as it is: axes, sizes, an exponent.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str
    constant: bool
    value: bytes = b""


@dataclass(frozen=True)
class Operator:
    """A distinct operator and how often the model calls it.

    ``flops`` are those of its multiply-adds by the definition, 0 where it is no product: how many
    operations an exponential takes is a matter of how it is computed. ``bytes`` is every operand
    and the result once. ``proto`` is the model of this one node.
    """

    op: str
    label: str
    calls: int
    flops: float
    bytes: int
    proto: Any = field(repr=False, compare=False)

    @property
    def positive(self) -> bool:
        """Whether its inputs must be positive."""
        return self.op in POSITIVE

    @property
    def image(self) -> bool:
        """Whether a model has its data with the channels last, which it has first here."""
        (result,) = self.proto.graph.output
        return self.op in IMAGES and len(result.type.tensor_type.shape.dim) == 4

    @property
    def work(self) -> float:
        """A guess of its share of an inference, in operations, before anything is timed."""
        return self.calls * (self.flops + TRAFFIC * self.bytes)


def operators_of(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> list[Operator]:
    """The distinct operators of the ONNX file ``path``, the heaviest (by a guess) first.

    Raises ``ModelError`` or ``InputError`` as the import does.
    """
    from autotune.frontends.onnx_file import fix_shapes, read_onnx
    from autotune.frontends.onnx_prepare import simplify

    slim, _ = simplify(fix_shapes(read_onnx(path).proto, shapes))
    found: dict[Any, Operator] = {}
    for key, made in _computing(slim):
        known = found.get(key)
        found[key] = made if known is None else replace(known, calls=known.calls + 1)
    return sorted(found.values(), key=lambda one: (-one.work, one.label))


def _computing(proto: Any) -> Iterator[tuple[Any, Operator]]:
    """Each node that computes, in order, with a key that is equal for equal operators."""
    from onnx import helper, numpy_helper, shape_inference

    graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    types = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        extents = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        if kind.elem_type and kind.HasField("shape") and min(extents, default=0) >= 0:
            types[value.name] = tuple(extents), helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        given = [name for name in node.input if name]
        unknown = [name for name in (*given, node.output[0]) if name not in {*types, *constants}]
        if node.domain not in ("", "ai.onnx") or unknown:
            continue
        if node.op_type in COMMUTATIVE:
            given.sort(key=constants.__contains__)
        names = list(dict.fromkeys(given))
        operands = {}
        for name in names:
            if name not in constants:
                operands[name] = Tensor(names.index(name), *types[name], constant=False)
                continue
            array = numpy_helper.to_array(constants[name])
            if node.op_type in ELEMENTWISE and array.size == 1:
                array = array.reshape(())  # 1 and [1] are the same operand
            kept = node.op_type in SETTINGS or array.dtype.kind != "f"
            held = array.tobytes() if kept else b""
            place = names.index(name)
            operands[name] = Tensor(place, array.shape, array.dtype.name, True, held)
        result = Tensor(len(names), *types[node.output[0]], constant=False)
        if counts(node.op_type, list(operands.values()), result, _attributes(node)):
            yield _operator(proto, node, operands, result)


def counts(
    op: str, operands: Sequence[Tensor], result: Tensor, attributes: Mapping[str, Any]
) -> bool:
    """Whether an operator of these operands takes time worth looking at, on floats."""
    data = [one for one in operands if not one.constant]
    if not data or any(one.dtype != "float32" for one in (*data, result)):
        return False
    if op == "Transpose":
        reverse = tuple(reversed(range(len(result.shape))))
        order = attributes.get("perm", reverse)
        # Moving axes of extent 1 only changes the shape.
        moved = [axis for axis in order if data[0].shape[axis] > 1]
        return moved != sorted(moved)
    return (
        op in PRODUCTS
        or op in OTHERS
        or (op in ELEMENTWISE and math.prod(result.shape) >= LEAST_ELEMENTS)
    )


def _operator(
    proto: Any, node: Any, operands: Mapping[str, Tensor], result: Tensor
) -> tuple[Any, Operator]:
    given = [operands.get(name) for name in node.input]
    if node.op_type in COMMUTATIVE:
        given.sort(key=lambda one: one.index)
    attributes = _attributes(node)
    chosen = {name: value for name, value in attributes.items() if value != _usual(name, value)}
    made = Operator(
        op=node.op_type,
        label=label(node.op_type, list(operands.values()), result, attributes),
        calls=1,
        flops=flops(node.op_type, [one.shape for one in given if one], result.shape, attributes),
        bytes=sum(_bytes(one) for one in (*operands.values(), result)),
        proto=_single(proto, node, operands, result),
    )
    return (node.op_type, str(sorted(chosen.items())), tuple(given)), made


def _usual(name: str, value: Any) -> Any:
    """The default of the attributes that some exporters write and others do not."""
    if name == "pads":
        return [0] * len(value)
    if name in ("strides", "dilations"):
        return [1] * len(value)
    return {"group": 1, "auto_pad": b"NOTSET"}.get(name)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _bytes(tensor: Tensor) -> int:
    import numpy as np

    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def channels_last(proto: Any) -> Any:
    """``proto`` with data and result as our passes have them within a model."""
    import onnx
    from onnx import helper

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    (node,) = graph.node
    (data,), (result,) = graph.input, graph.output
    first = helper.make_node("Transpose", [data.name], ["first"], perm=[0, 3, 1, 2])
    last = helper.make_node("Transpose", ["found"], [result.name], perm=[0, 2, 3, 1])
    node.input[0], node.output[0] = "first", "found"
    graph.ClearField("node")
    graph.node.extend([first, node, last])
    for value in (data, result):
        shape = value.type.tensor_type.shape
        dims = [shape.dim[axis].dim_value for axis in (0, 2, 3, 1)]
        for axis, extent in enumerate(dims):
            shape.dim[axis].dim_value = extent
    onnx.checker.check_model(made)
    return made


def flops(
    op: str,
    operands: Sequence[tuple[int, ...]],
    result: tuple[int, ...],
    attributes: Mapping[str, Any],
) -> float:
    """Two for each multiply-add of the definition; 0 where ``op`` is no product."""
    if op == "Conv":
        return 2.0 * math.prod(result) * math.prod(operands[1][1:])
    if op == "ConvTranspose":
        return 2.0 * math.prod(operands[0]) * math.prod(operands[1][1:])
    if op == "MatMul":
        return 2.0 * math.prod(result) * operands[0][-1]
    if op == "Gemm":
        return 2.0 * math.prod(result) * operands[0][0 if attributes.get("transA") else 1]
    return 0.0


def label(
    op: str, operands: Sequence[Tensor], result: Tensor, attributes: Mapping[str, Any]
) -> str:
    """For people: the shapes, constants in brackets, and the attributes that are not usual."""
    words = [op]
    for one in operands:
        bias = one.constant and op in PRODUCTS and len(one.shape) == 1
        text = "bias" if bias else "x".join(map(str, one.shape))
        if not one.constant or bias:
            words.append(text)
        elif not one.value and 0 not in one.shape:
            words.append(f"[{text or '1'}]")
    if op == "Resize":
        words.append(f"to {'x'.join(map(str, result.shape))}")
    told = {"strides": "stride", "group": "group", "dilations": "dilation", "perm": "to"}
    if op not in PRODUCTS:
        told |= {"kernel_shape": "window", "axis": "axis", "axes": "axes"}
    for name, word in told.items():
        value = attributes.get(name)
        if value is not None and value != _usual(name, value):
            values = [value] if isinstance(value, int) else value
            words.append(f"{word} {','.join(map(str, values))}")
    return " ".join(words)


def _single(proto: Any, node: Any, operands: Mapping[str, Tensor], result: Tensor) -> Any:
    """A model of ``node`` alone, for the operators that ``proto`` means by its names."""
    import onnx
    from onnx import helper

    names = {name: f"{'w' if one.constant else 'x'}{one.index}" for name, one in operands.items()}
    alone = helper.make_node(node.op_type, [names.get(n, "") for n in node.input], ["y"])
    alone.attribute.extend(node.attribute)

    def value(name: str, tensor: Tensor) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(_dtype(tensor))
        return helper.make_tensor_value_info(name, kind, tensor.shape)

    graph = helper.make_graph(
        [alone],
        node.op_type.lower(),
        [value(names[n], one) for n, one in operands.items() if not one.constant],
        [value("y", result)],
        [_constant(node.op_type, names[n], one) for n, one in operands.items() if one.constant],
    )
    made = helper.make_model(graph, opset_imports=proto.opset_import)
    made.ir_version = max(proto.ir_version, 4)  # from 4 on initializers need not be inputs
    onnx.checker.check_model(made)
    return made


def _dtype(tensor: Tensor) -> Any:
    import numpy as np

    return np.dtype(tensor.dtype)


def _constant(op: str, name: str, tensor: Tensor) -> Any:
    import numpy as np
    from onnx import numpy_helper

    if tensor.value or not math.prod(tensor.shape):
        array = np.frombuffer(tensor.value, _dtype(tensor)).reshape(tensor.shape)
        return numpy_helper.from_array(array, name)
    rng = np.random.default_rng([tensor.index, *tensor.shape])
    if op in PRODUCTS and len(tensor.shape) > 1:
        # So large that results are about as large as the data.
        summed = math.prod(tensor.shape[:-1] if op in ("Gemm", "MatMul") else tensor.shape[1:])
        array = rng.normal(0.0, summed**-0.5, tensor.shape)
    else:
        array = rng.uniform(0.5, 1.5, tensor.shape)
    return numpy_helper.from_array(array.astype(_dtype(tensor)), name)
