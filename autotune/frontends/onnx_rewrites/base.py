"""What a rewrite gets and gives: one ONNX node as other nodes, that TVM's importer knows.

A rewrite is a function of a ``Site``: it emits nodes there and returns the names of what stands for
the node's outputs, or None where it does not apply. It may use what is known before the model runs:
shapes, types and constants. What it emits may not be ONNX of the model's own opset (only the
importer reads it), and is compared with the original like everything that is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.errors import ModelError
from autotune.frontends.onnx_relax import PRIVATE
from autotune.frontends.onnx_weights import outline

if TYPE_CHECKING:
    import numpy as np

Value = Any
"""The name of a value, or an array, which becomes a constant."""


class Facts:
    """What is known of the values of a model before it runs."""

    def __init__(self, proto: Any) -> None:
        from onnx import shape_inference

        self.opset = max(
            (e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), default=1
        )
        shown = outline(proto)  # which is serialised, and no shape follows from a large weight
        try:
            graph = shape_inference.infer_shapes(shown, data_prop=True).graph
        except Exception:  # C++ that raises as it likes; then less is known
            graph = shown.graph
        self._types: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type"):
                self._types[value.name] = value.type.tensor_type
        self._tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output if name}
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._tensors[node.output[0]] = attribute.t
                    elif attribute.name.startswith("value_"):
                        self._constants[node.output[0]] = _array_of(attribute)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape, None where any extent is open."""
        if name in self._constants:
            return tuple(self._constants[name].shape)
        if name in self._tensors:
            return tuple(self._tensors[name].dims)
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        dims = list(kind.shape.dim)
        if not all(d.HasField("dim_value") for d in dims):
            return None
        return tuple(d.dim_value for d in dims)

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """The type of the elements, None where it is not known."""
        from onnx import helper

        if name in self._constants:
            return self._constants[name].dtype  # type: ignore[no-any-return]
        kind = self._tensors.get(name) or self._types.get(name)
        code = getattr(kind, "data_type", 0) or getattr(kind, "elem_type", 0)
        if not code:
            return None
        try:
            return helper.tensor_dtype_to_np_dtype(code)
        except KeyError:
            return None

    def maker(self, name: str) -> Any:
        """The node that computes ``name``, None for inputs and constants."""
        return self._makers.get(name)

    def constant(self, name: str) -> np.ndarray | None:
        """The array, None where it is computed."""
        from onnx import numpy_helper

        if name not in self._constants and name in self._tensors:
            self._constants[name] = numpy_helper.to_array(self._tensors[name])
        return self._constants.get(name)


def _array_of(attribute: Any) -> Any:
    import numpy as np
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    return np.asarray(value, {"f": np.float32, "i": np.int64}.get(attribute.name[6:7]))


class Unknown(ModelError):
    """A rewrite needs to know something that only the running model knows."""


class Refused(ModelError):
    """What a model asks for is not agreed upon, so nothing is made of it."""


@dataclass
class Site:
    """The node being rewritten, and where its replacement grows."""

    node: Any
    facts: Facts
    prefix: str
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    typed: list[Any] = field(default_factory=list)
    _count: int = 0
    _source: dict[str, Any] = field(default_factory=dict)
    _values: dict[str, np.ndarray] = field(default_factory=dict)
    _seen: tuple[int, int] = (0, 0)

    # What the node has

    @property
    def operator(self) -> str:
        return str(self.node.op_type)

    def input(self, position: int) -> str:
        """The name of an input, empty where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; text as ``str``."""
        from onnx import helper

        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                if isinstance(value, bytes):
                    return value.decode()
                if isinstance(value, list) and value and isinstance(value[0], bytes):
                    return [item.decode() for item in value]
                return value
        return default

    def attributes(self, *names: str) -> dict[str, Any]:
        """Those of ``names`` that the node has, for another node in its place."""
        found = {name: self.attribute(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ``Unknown`` where it is open."""
        shape = self.facts.shape(name)
        if shape is None:
            raise Unknown(f"the shape of {name} is not known before the model runs")
        return shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Raises ``Unknown``."""
        dtype = self.facts.dtype(name)
        if dtype is None:
            raise Unknown(f"the type of {name} is not known before the model runs")
        return dtype

    def constant(self, name: str) -> np.ndarray:
        """The value of an input that has to be a constant. Raises ``Unknown``."""
        value = self.facts.constant(name)
        if value is None:
            raise Unknown(f"{name} is not known before the model runs")
        return value

    # What replaces it

    def emit(self, operator: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> str:
        """Emit a node; returns the name of its first output, the others are ``name + "/1"``..."""
        from onnx import helper

        name = self.fresh()
        names = [name, *(f"{name}/{i}" for i in range(1, outputs))]
        made = helper.make_node(operator, [self.name(v) for v in inputs], names, **attributes)
        made.name = name
        self.nodes.append(made)
        return name

    def emit_private(
        self, operator: str, *inputs: Value, shapes: Sequence[Sequence[int]], **attributes: Any
    ) -> list[str]:
        """Emit a node that our importer alone knows; returns the names of its float32 outputs.

        ``shapes`` are theirs, which nobody else could infer.
        """
        from onnx import TensorProto, helper

        first = self.emit(operator, *inputs, outputs=len(shapes), domain=PRIVATE, **attributes)
        names = [first, *(f"{first}/{i}" for i in range(1, len(shapes)))]
        self.typed += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, shape in zip(names, shapes, strict=True)
        ]
        return names

    def name(self, value: Value) -> str:
        """The name of ``value``, which becomes an initializer where it is an array."""
        import numpy as np
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        name = self.fresh()
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def fresh(self) -> str:
        """A name that nothing has."""
        self._count += 1
        return f"{self.prefix}.{self._count}"

    def cast(self, value: str, dtype: Any) -> str:
        """``value`` in another type."""
        from onnx import helper

        return self.emit("Cast", value, to=helper.np_dtype_to_tensor_dtype(_dtype(dtype)))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        import numpy as np

        return self.emit("Reshape", value, np.asarray(shape, np.int64))

    def slice(self, value: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """``value[start:end:step]`` along ``axis``."""
        import numpy as np

        numbers = [np.array([number], np.int64) for number in (start, end, axis, step)]
        return self.emit("Slice", value, *numbers)

    def take(self, value: str, indices: Any, axis: int) -> str:
        """``value`` at constant ``indices`` along ``axis``."""
        import numpy as np

        return self.emit("Gather", value, np.asarray(indices, np.int64), axis=axis)

    def unsqueeze(self, value: str, axis: int) -> str:
        import numpy as np

        if self.facts.opset < 13:
            return self.emit("Unsqueeze", value, axes=[axis])
        return self.emit("Unsqueeze", value, np.array([axis], np.int64))

    def reduce(self, operator: str, value: str, axis: int) -> str:
        """ReduceMax and the like along one axis, which is kept."""
        import numpy as np

        if self.facts.opset < 18:
            return self.emit(operator, value, axes=[axis], keepdims=1)
        return self.emit(operator, value, np.array([axis], np.int64), keepdims=1)

    def value(self, name: str) -> np.ndarray | None:
        """What ``name`` is, where it follows from constants; emitted nodes are evaluated."""
        from onnx import numpy_helper

        known = self.facts.constant(name)
        if known is not None:
            return known
        if name in self._values:
            return self._values[name]
        for tensor in self.tensors[self._seen[0] :]:
            self._source[tensor.name] = tensor
        for node in self.nodes[self._seen[1] :]:
            self._source.update(dict.fromkeys(node.output, node))
        self._seen = len(self.tensors), len(self.nodes)
        source = self._source.get(name)
        if source is None:
            return None
        if hasattr(source, "data_type"):
            self._values[name] = numpy_helper.to_array(source)
            return self._values[name]
        inputs = {given: self.value(given) for given in source.input if given}
        if any(value is None for value in inputs.values()):
            return None
        self._values.update(evaluated(source, inputs, self.facts.opset))
        return self._values.get(name)

    def equal_parts(self, count: int) -> list[Any]:
        """The second input of a Split in ``count`` slices of one: TVM's importer needs none before
        opset 13, where it counts the outputs.
        """
        import numpy as np

        return [] if self.facts.opset < 13 else [np.ones(count, np.int64)]

    def transpose(self, value: str, order: Sequence[int]) -> str:
        return self.emit("Transpose", value, perm=[int(axis) for axis in order])


def evaluated(node: Any, inputs: dict[str, Any], opset: int) -> dict[str, Any]:
    """The outputs of ``node`` on arrays by name, by ``onnx.reference``; none where it fails."""
    from onnx import ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "one",
        [ValueInfoProto(name=name) for name in inputs],
        [ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        values = ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # it lacks operators and fails in any way
        return {}
    return dict(zip(outputs, values, strict=True))


def _dtype(dtype: Any) -> Any:
    import numpy as np

    return np.dtype(dtype)


ML = "ai.onnx.ml"
"""The domain of what is not deep: scalers, linear models, trees."""

Apply = Callable[[Site], "Sequence[str] | None"]


@dataclass(frozen=True)
class Rewrite:
    """``apply`` for the ``operators`` of ``domain``, which is ONNX's own where it is empty.

    ``known`` says that TVM's importer knows the operator as well: then its own conversion is tried
    first, and the rewrite is for what that refuses or gets wrong. ``always`` says that it gets it
    wrong where no comparison on random inputs is sure to show it, so its own is never tried.
    """

    operators: tuple[str, ...]
    apply: Apply
    known: bool = False
    always: bool = False
    domain: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The operators as ``qualified`` spells them."""
        return tuple(qualified(operator, self.domain) for operator in self.operators)


def qualified(operator: str, domain: str) -> str:
    """``operator`` with its domain, where that is not ONNX's own."""
    return operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
