"""ONNX to Relax by TVM's importer, with conversions of our own where its choice spoils fusion."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from autotune.frontends.onnx_names import label

# Operators that compute elementwise on broadcast operands: a constant of one element may lose its
# axes, and a rank-0 constant becomes an immediate of the kernel rather than a buffer.
ELEMENTWISE = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Less", "Greater", "Equal"]
)

FOREIGN = frozenset(["Attention"])
"""Operators that TVM's importer knows by name only: its conversion is that of another domain."""

SAME_IN_MICROSOFT = frozenset(["GatherND", "GridSample", "Pad", "Range", "Trilu", "Unique"])
"""Operators of com.microsoft that are the standard's own of the same name.

TVM's conversions of others there leave out inputs and attributes (``onnx_contrib`` has those).
"""

PRIVATE = "autotune"
"""The domain of what rewrites emit and ONNX has no operator for: RECURRENCE alone."""

RECURRENCE = "Recurrence"
"""A whole recurrence; its attribute "spec" is the text of a ``recurrence.Recurrence``."""


def is_supported(operator: str, domain: str) -> bool:
    """Whether the importer has a conversion for ``operator`` of ``domain``."""
    from tvm.relax.frontend.onnx import onnx_frontend

    if domain == PRIVATE:
        return operator == RECURRENCE
    known = set(onnx_frontend._get_convert_map()) | {"If", "Constant", "BitCast"}
    if domain == "com.microsoft":
        return operator in known and operator in SAME_IN_MICROSOFT
    return operator in known and operator not in FOREIGN and domain in ("", "ai.onnx")


def unsupported_operators(proto: Any) -> Counter[str]:
    """Operators of ``proto`` (not of its subgraphs) that cannot be imported, with their counts."""
    return Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in proto.graph.node
        if not is_supported(node.op_type, node.domain)
    )


def to_relax(proto: Any, names: Mapping[str, tuple[str, ...]] | None = None) -> Any:
    """The ``tvm.IRModule`` of a model whose shapes are fixed and whose operators are supported.

    ``names`` are those of the original nodes, by the first output of what became of them; without
    each node has its own. Raises whatever TVM's importer raises: the caller knows which cures are
    left.
    """
    from autotune.graph.origins import filled
    from search_spaces.graph.origins import NamingBuilder

    opset = max(e.version for e in proto.opset_import if e.domain in ("", "ai.onnx"))
    importer = _importer_class()({}, "float32", keep_params_in_input=False, sanitize=True)
    importer.bb = NamingBuilder()
    importer.original = {} if names is None else names
    # TVM prints the operator it fails on, and warns of each name it changes.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return filled(importer.from_onnx(proto.graph, opset))
        except BaseException:
            # The block that was begun, or TVM complains of it on stderr.
            with contextlib.suppress(Exception):
                importer.bb._end_block()
            raise


@functools.cache
def _importer_class() -> Any:
    import numpy as np
    from onnx import NodeProto
    from tvm import relax
    from tvm.ir import GenericConst
    from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

    from autotune.frontends import onnx_divide, onnx_quantise

    def constant(value: Any) -> Any:
        """The array of a constant, None for anything computed."""
        return value.value.numpy() if isinstance(value, GenericConst) else None

    def as_scalar(value: Any, rank: int) -> Any:
        array = constant(value)
        if array is None or array.size != 1 or array.ndim == 0 or array.ndim > rank:
            return value
        return relax.const(array.reshape(()), str(array.dtype))

    def is_tensor(value: Any) -> bool:
        return isinstance(value, relax.Expr) and isinstance(value.ty, relax.TensorType)

    def clip(builder: Any, inputs: Any, attributes: Any) -> Any:
        """Clip with constant bounds as one operator: TVM's guards them with isnan and where."""
        bounds = [attributes.get("min"), attributes.get("max")]
        for position in (1, 2):
            if len(inputs) > position and inputs[position] is not None:
                array = constant(inputs[position])
                if array is None or array.size != 1:
                    return None
                bounds[position - 1] = array.item()
        dtype = np.dtype(str(inputs[0].ty.dtype))
        if dtype.kind != "f" or any(b is not None and np.isnan(b) for b in bounds):
            return None
        low, high = bounds
        if low is not None and high is not None:
            return relax.op.clip(inputs[0], low, high)
        result = inputs[0]
        if low is not None:
            result = relax.op.maximum(result, relax.const(low, dtype.name))
        if high is not None:
            result = relax.op.minimum(result, relax.const(high, dtype.name))
        return result

    def pairwise(operator: Any) -> Any:
        """Sum, Min and Max as a chain: TVM's broadcast, stack and reduce ends fusion."""

        def convert(builder: Any, inputs: Any, attributes: Any) -> Any:
            if all(constant(value) is not None for value in inputs):
                return None
            return functools.reduce(lambda a, b: builder.normalize(operator(a, b)), inputs)

        return convert

    def mean(builder: Any, inputs: Any, attributes: Any) -> Any:
        total = pairwise(relax.op.add)(builder, inputs, attributes)
        if total is None:
            return None
        return relax.op.divide(total, relax.const(len(inputs), str(total.ty.dtype)))

    def gather(builder: Any, inputs: Any, attributes: Any) -> Any:
        """Gather with the axis' extent as a number: TVM asks for it while the model runs."""
        data, indices = inputs[0], inputs[1]
        if constant(data) is not None and constant(indices) is not None:
            return None
        axis = attributes.get("axis", 0)
        extent = int(list(data.ty.shape)[axis])
        known = constant(indices)
        if known is not None:
            indices = relax.const(np.where(known < 0, known + extent, known), str(known.dtype))
        else:
            dtype = str(indices.ty.dtype)
            negative = builder.normalize(relax.op.less(indices, relax.const(0, dtype)))
            wrapped = builder.normalize(relax.op.add(indices, relax.const(extent, dtype)))
            indices = builder.normalize(relax.op.where(negative, wrapped, indices))
        return relax.op.take(data, indices, axis)

    def equal(builder: Any, inputs: Any, attributes: Any) -> Any:
        """Of booleans, which TVM would compare as floats; its code generator ends at that."""
        if {str(value.ty.dtype) for value in inputs} != {"bool"}:
            return None
        return relax.op.logical_not(builder.normalize(relax.op.logical_xor(*inputs)))

    def bit_cast(builder: Any, inputs: Any, attributes: Any) -> Any:
        """The same bits as another type."""
        from onnx import helper
        from tvm import te, tirx

        dtype = helper.tensor_dtype_to_np_dtype(attributes["to"]).name
        if "bool" in (dtype, str(inputs[0].ty.dtype)):
            return relax.op.astype(inputs[0], dtype)  # a boolean is a byte of 0 or 1

        def bits(x: Any) -> Any:
            return te.compute(x.shape, lambda *i: tirx.reinterpret(dtype, x[i]), name="bits")

        return builder.call_te(bits, inputs[0], primfunc_name_hint="bit_cast")

    def recurrence(builder: Any, inputs: Any, attributes: Any) -> Any:
        from autotune.frontends.recurrence import from_text
        from autotune.frontends.recurrence_function import emit_recurrence

        return emit_recurrence(builder, from_text(attributes["spec"].decode()), inputs)

    ours = {
        RECURRENCE: recurrence,
        "BitCast": bit_cast,
        "Clip": clip,
        "Equal": equal,
        "Sum": pairwise(relax.op.add),
        "Min": pairwise(relax.op.minimum),
        "Max": pairwise(relax.op.maximum),
        "Mean": mean,
        "Gather": gather,
        "Div": onnx_divide.divide,
        "Mod": onnx_divide.modulo,
        "QuantizeLinear": onnx_quantise.quantize,
        "DequantizeLinear": onnx_quantise.dequantize,
    }

    class Importer(ONNXGraphImporter):  # type: ignore[misc, unused-ignore]
        """TVM's importer, asking our conversions first; one that returns None passes."""

        original: Mapping[str, tuple[str, ...]]

        def _parse_value_proto(self, value_proto: Any) -> Any:
            """Asked of each node before it is converted: from now on that is where calls are from.

            What subgraphs are made of is of the node that they belong to.
            """
            if isinstance(value_proto, NodeProto):
                known = self.original.get(next(iter(value_proto.output), ""))
                self.bb.origin = (label(value_proto),) if known is None else known
            return super()._parse_value_proto(value_proto)

        def _check_for_unsupported_ops(self, graph: Any) -> None:
            """That was asked before, of us as well."""

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            tensors = all(is_tensor(value) for value in inputs if value is not None)
            if op_name in ELEMENTWISE and tensors and None not in list(inputs):
                ranks = [int(value.ty.ndim) for value in inputs]
                for index, value in enumerate(list(inputs)):
                    others = ranks[:index] + ranks[index + 1 :]
                    inputs[index] = as_scalar(value, max(others, default=0))
            if op_name in ours and tensors:
                made = ours[op_name](self.bb, inputs, attrs)
                if made is not None:
                    return self.bb.normalize(made)
            return super()._convert_operator(op_name, inputs, attrs, opset)

    return Importer
