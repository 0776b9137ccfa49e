"""Models that compute in bfloat16, as the same in float32 that round where the original does.

No kernel adds up in 8 bits of mantissa: an operator gets its numbers, which float32 holds exactly,
computes in float32, and what comes out is rounded once to bfloat16. That is what hardware with such
numbers does, it needs no instruction for them, and what simplifies, rewrites and compiles a model
meets one type less. Weights are widened for good; graph inputs and outputs stay bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXACT = frozenset(
    ["Abs", "Ceil", "Clip", "Compress", "Concat", "Constant", "DepthToSpace", "Dropout", "Expand",
     "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Identity", "Max",
     "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ReverseSequence",
     "Round", "Sign", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose",
     "Trilu", "Unsqueeze", "Where"]
)  # fmt: skip
"""Operators that make bfloat16 numbers of such, whatever they compute in: nothing is to round."""

MONOTONE = frozenset(
    ["Flatten", "GlobalMaxPool", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"]
)
"""Those of them that make the same of rounded numbers as is rounded of theirs: it may be done after
them, where a kernel ends."""

TYPES = frozenset(["to", "dtype", "output_dtype"])
"""Attributes that hold the type of a result."""

CASTS = frozenset(["BitCast", "Cast", "CastLike"])

INNER = frozenset(["stash_type", "softmax_precision"])
"""Attributes that hold the type to compute something in."""


def holds_bfloat16(proto: Any) -> bool:
    """Whether any value that ``proto`` declares, holds or casts to is bfloat16."""
    from onnx import TensorProto

    from autotune.frontends.onnx_file import tensors_of

    code = TensorProto.BFLOAT16
    own = [node for one in proto.functions for node in one.node]
    nodes = [*proto.graph.node, *own]
    casts = (a.i for node in nodes for a in node.attribute if a.name in TYPES)
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    declared = (value.type.tensor_type.elem_type for value in values)
    held = (tensor.data_type for tensor in tensors_of(proto.graph))
    inner = (a.t.data_type for node in own for a in node.attribute if a.HasField("t"))
    return any(code in codes for codes in (casts, declared, held, inner))


def rounding(proto: Any) -> Any:
    """A copy of ``proto`` in float32 that rounds to bfloat16 after every operator that did.

    ``proto`` itself where it holds no such numbers, or where some of its types are not known: then
    it is imported as it is, and the comparison decides.
    """
    if not holds_bfloat16(proto):
        return proto
    plain = _without_functions(proto)
    short = None if plain is None or _subgraphs(plain) else _short_values(plain)
    return proto if short is None else _Widened(plain, short).proto


def retyped(proto: Any, types: Mapping[int, int]) -> Any:
    """A copy of ``proto`` with other types of floats, by their numbers in ONNX, and no rounding."""
    from onnx import TensorProto

    def convert(tensor: Any) -> None:
        if tensor.data_type in types:
            tensor.CopyFrom(converted(tensor, types[tensor.data_type]))

    def visit(graph: Any) -> None:
        for tensor in graph.initializer:
            convert(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            if kind.elem_type in types:
                kind.elem_type = types[kind.elem_type]
        nodes(graph.node)

    def nodes(found: Any) -> None:
        for node in found:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    convert(attribute.t)
                if attribute.HasField("g"):
                    visit(attribute.g)
                if attribute.name in TYPES and attribute.i in types:
                    attribute.i = types[attribute.i]
                if attribute.name in INNER and attribute.i == TensorProto.BFLOAT16:
                    attribute.i = TensorProto.FLOAT

    copy = type(proto)()
    copy.CopyFrom(proto)
    visit(copy.graph)
    for function in copy.functions:
        nodes(function.node)
    return copy


def converted(tensor: Any, code: int) -> Any:
    """``tensor`` in another type, of the number ``code``."""
    from onnx import helper, numpy_helper

    array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(code))
    return numpy_helper.from_array(array, tensor.name)


def _without_functions(proto: Any) -> Any:
    """``proto`` with the functions of its own in place of their calls; None where that fails."""
    from onnx import inliner

    if not proto.functions:
        return proto
    try:
        return inliner.inline_local_functions(proto)
    except Exception:  # C++ that raises as it likes
        return None


def _subgraphs(proto: Any) -> bool:
    return any(a.HasField("g") for node in proto.graph.node for a in node.attribute)


def _short_values(proto: Any) -> set[str] | None:
    """The names of bfloat16 values; None where the type of a value next to one is not known."""
    from onnx import TensorProto, shape_inference

    from autotune.frontends.onnx_weights import outline

    try:
        graph = shape_inference.infer_shapes(outline(proto), data_prop=True).graph
    except Exception:  # C++ that raises as it likes
        return None
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    short = {name for name, code in types.items() if code == TensorProto.BFLOAT16}
    for node in proto.graph.node:
        unknown = [name for name in node.output if name and not types.get(name)]
        if unknown and short & {*node.input}:
            return None
    return short


class _Widened:
    """``proto``: the model in float32. Values inside of it keep their names."""

    def __init__(self, proto: Any, short: set[str]) -> None:
        from onnx import TensorProto

        self.short, self.proto = short, type(proto)()
        self.proto.CopyFrom(proto)
        self._wide, self._narrow = TensorProto.FLOAT, TensorProto.BFLOAT16
        graph = self.proto.graph
        own = {value.name for value in (*graph.input, *graph.output)}
        held = {tensor.name for tensor in graph.initializer}
        self._names = {name: f"{name}/float32" for name in short & own - held}
        self._read = {name for node in graph.node for name in node.input}
        self._nodes: list[Any] = []
        self._late = self._rounded_later(graph, own)
        self._weights(graph)
        for value in graph.input:
            if value.name in self._names:
                self._cast(value.name, self._names[value.name], self._wide)
        for node in list(graph.node):
            self._node(node)
        del graph.node[:]
        graph.node.extend(self._nodes)
        for value in graph.value_info:
            if value.name in short:
                value.type.tensor_type.elem_type = self._wide

    def _rounded_later(self, graph: Any, own: set[str]) -> set[str]:
        """The values that only an operator reads which may as well round what it makes of them."""
        readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return {
            name
            for node in graph.node
            if node.op_type not in CASTS
            for name in node.output
            if name in self.short - own
            and [one.op_type in MONOTONE for one in readers.get(name, ())] == [True]
            and readers[name][0].input[0] == name
        }

    def _weights(self, graph: Any) -> None:
        listed = {value.name: value for value in graph.input}
        returned = {value.name for value in graph.output}
        for tensor in graph.initializer:
            if tensor.name not in self.short:
                continue
            tensor.CopyFrom(converted(tensor, self._wide))
            if tensor.name in listed:
                listed[tensor.name].type.tensor_type.elem_type = self._wide
            if tensor.name in returned:
                kept = tensor.name
                tensor.name = self._names[kept] = f"{kept}/float32"
                self._cast(tensor.name, kept, self._narrow)

    def _node(self, node: Any) -> None:
        made = type(node)()
        made.CopyFrom(node)
        raw = node.op_type == "BitCast"  # which sees the bits
        if node.op_type == "CastLike":
            self._as_cast(made)
        elif not raw:
            self._attributes(made)
        for place, name in enumerate(node.input[: len(made.input)]):
            wide = self._names.get(name, name)
            if raw and name in self.short:
                made.input[place] = self._fresh(name, "bits")
                self._cast(wide, made.input[place], self._narrow)
            else:
                made.input[place] = wide
        casts = made.op_type == "Cast" and node.output[0] in self.short
        exact = node.op_type in EXACT and not self._late & {*node.input}
        after = []
        for place, name in enumerate(node.output):
            if name not in self.short:
                continue
            if name in self._late:
                continue
            wide = self._names.get(name, name)
            # An output of the graph is the rounded number itself, and is always made.
            rounded = name if wide != name else self._fresh(name, "bfloat16")
            if exact and wide == name:
                continue
            if raw or casts:
                made.output[place] = rounded
            else:
                made.output[place] = self._fresh(name, "unrounded")
                after.append((made.output[place], rounded, self._narrow))
            if name in self._read:
                after.append((rounded, wide, self._wide))
        if casts:
            _set(made, "to", self._narrow)
        self._nodes.append(made)
        for source, target, code in after:
            self._cast(source, target, code)

    def _as_cast(self, made: Any) -> None:
        """A CastLike after a bfloat16 number is a Cast to that; after others it stays."""
        from onnx import helper

        if made.input[1] in self.short:
            cast = helper.make_node("Cast", made.input[:1], made.output, to=self._narrow)
            cast.name = made.name
            made.CopyFrom(cast)

    def _attributes(self, made: Any) -> None:
        for attribute in made.attribute:
            if attribute.HasField("t") and attribute.t.data_type == self._narrow:
                attribute.t.CopyFrom(converted(attribute.t, self._wide))
            if attribute.name in TYPES | INNER and attribute.i == self._narrow:
                attribute.i = self._wide

    def _fresh(self, name: str, what: str) -> str:
        return f"{name}/{what}{len(self._nodes)}"

    def _cast(self, source: str, target: str, code: int) -> None:
        from onnx import helper

        # Without a name: what it is made for names it.
        self._nodes.append(helper.make_node("Cast", [source], [target], to=code))


def _set(node: Any, name: str, value: int) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.i = value
