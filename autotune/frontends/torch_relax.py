"""ATen to Relax by TVM's importer, with conversions of our own where its are wrong or unfusable."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

from autotune.frontends.torch_names import label
from autotune.frontends.torch_program import Program
from autotune.frontends.torch_recurrent import OPERATORS, Layers

# Operators that torch would take apart, but whose whole is understood here and fuses better.
WHOLE = (
    *("linear.default", "matmul.default", "layer_norm.default", "index_copy.default"),
    *("scaled_dot_product_attention.default", "gelu.default", "silu.default", "hardswish.default"),
    *("hardsigmoid.default", "softmax.int", "conv1d.default"),
    *("conv2d.default", "upsample_bilinear2d.vec", "upsample_nearest2d.vec"),
    *OPERATORS,
)

ALIGNMENT = 64
"""Bytes: compiled code may read whole vectors from where a weight begins."""


def decompositions() -> Any:
    """The table of what torch takes apart: everything but ``WHOLE``."""
    import torch

    table: Any = torch.export.default_decompositions()
    for name in WHOLE:
        packet, overload = name.split(".")
        table.pop(getattr(getattr(torch.ops.aten, packet), overload), None)
    return table


def unsupported_operators(program: Program) -> dict[str, int]:
    """Operators of ``program`` that cannot be imported, with their counts."""
    known = _importer_class()().convert_map
    counts: dict[str, int] = {}
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and node.target.__name__ not in known:
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def to_relax(program: Program) -> Any:
    """The ``tvm.IRModule`` of a program whose shapes are fixed and operators supported.

    "main" takes the program's inputs and returns what has a name, one tensor or a tuple; weights
    are bound. Raises whatever TVM's importer raises.
    """
    import tvm
    from tvm import relax

    from autotune.graph.origins import filled
    from search_spaces.graph.origins import NamingBuilder

    importer = _importer_class()()
    nodes = list(program.graph.graph.nodes)
    variables: dict[str, Any] = {}
    for node in nodes:
        if node.op == "placeholder" and node.name not in program.fixed:
            value = node.meta["val"]
            shape = [int(extent) for extent in value.shape]
            dtype = importer._convert_data_type(value.dtype)
            variables[node.name] = relax.Var(node.name, relax.TensorType(shape, dtype))
    ordered = [variables[name] for name in (*program.inputs, *program.bound)]
    importer.block_builder = builder = NamingBuilder()
    with _ended(builder), builder.function("main", ordered):
        with builder.dataflow():
            values = importer._translate_fx_graph(program.graph, _named(nodes, program), variables)
            result = values[0] if len(values) == 1 else relax.Tuple(list(values))
            returned = builder.emit_output(result)
        builder.emit_func_output(returned)
    weights = {name: _weight(tensor) for name, tensor in program.bound.items()}
    module: tvm.IRModule = relax.transform.BindParams("main", weights)(filled(builder.get()))
    return module


@contextlib.contextmanager
def _ended(builder: Any) -> Iterator[None]:
    """End the block that was begun where something fails, or TVM complains of it on stderr."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            builder._end_block()
        raise


def _named(nodes: list[Any], program: Program) -> list[Any]:
    """``nodes`` with an output node that returns what has a name alone."""
    import torch

    *body, output = nodes
    returned = zip(output.args[0], program.outputs, strict=True)
    kept = tuple(value for value, name in returned if name is not None)
    last = torch.fx.Graph().output(kept)
    return [*body, last]


def _weight(tensor: Any) -> Any:
    """A torch tensor as TVM's, over the same memory where that is as kernels want it."""
    import tvm

    dense = tensor.contiguous()
    if dense.data_ptr() % ALIGNMENT:
        # Files and views begin anywhere; torch's own memory is aligned.
        dense = dense.clone()
    return tvm.runtime.from_dlpack(dense)


@functools.cache
def _importer_class() -> Any:
    import numpy as np
    from tvm import relax
    from tvm.ir import GenericConst
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    op = relax.op

    def shape(value: Any) -> list[int]:
        return [int(extent) for extent in value.ty.shape]

    def dtype(value: Any) -> str:
        return str(value.ty.dtype)

    class Importer(ExportedProgramImporter):  # type: ignore[misc, unused-ignore]
        """TVM's importer, with conversions of ours in its table."""

        def create_convert_map(self) -> Any:
            table = super().create_convert_map() | self._ours()
            return {operator: self._noting(convert) for operator, convert in table.items()}

        def _noting(self, convert: Any) -> Any:
            """``convert``, with what it emits named after the node."""

            def named(node: Any, *rest: Any) -> Any:
                self.block_builder.origin = (label(node),)
                return convert(node, *rest)

            return named

        def _ours(self) -> dict[str, Any]:
            return {
                "cumsum.default": self._our_cumsum,
                "linear.default": self._our_linear,
                "addmm.default": self._our_addmm,
                "scaled_dot_product_attention.default": self._our_attention,
                "index_copy.default": self._our_index_copy,
                "index.Tensor": self._our_index,
                "full.default": self._our_full,
                "embedding.default": self._our_embedding,
                "select.int": self._our_select,
                "matmul.default": self._our_matmul,
                "mm.default": self._our_matmul,
                "bmm.default": self._our_matmul,
                "clamp.default": self._our_clamp,
                "clamp_min.default": self._our_clamp,
                "clamp_max.default": self._our_clamp_max,
                **dict.fromkeys(OPERATORS, self._our_recurrence),
            }

        def _emit(self, expression: Any) -> Any:
            return self.block_builder.emit(expression)

        def _argument(self, node: Any, position: int, name: str, default: Any = None) -> Any:
            value = node.args[position] if len(node.args) > position else node.kwargs.get(name)
            if value is None:
                return default
            return self.env.get(value, value) if hasattr(value, "op") else value

        def _our_recurrence(self, node: Any) -> Any:
            """As a loop over the steps; TVM's unrolls them, and so does torch."""
            data, first, weights, biased, _, _, _, both, batch_first = node.args
            name = node.target.__name__
            states = first if name == "lstm.input" else [first]
            layers = Layers(self.block_builder, name, [self.env[w] for w in weights], biased, both)
            data = self.env[data]
            if batch_first:
                data = self._emit(op.permute_dims(data, [1, 0, 2]))
            result, *last = layers.run(data, [self.env[state] for state in states])
            if batch_first:
                result = self._emit(op.permute_dims(result, [1, 0, 2]))
            return (result, *last)

        def _our_cumsum(self, node: Any) -> Any:
            """Sums of booleans are integers, as torch's are; TVM's would stay booleans."""
            data, axis = self._argument(node, 0, "self"), self._argument(node, 1, "dim")
            wanted = self._convert_data_type(node.meta["val"].dtype)
            if dtype(data) != wanted:
                data = self._emit(op.astype(data, wanted))
            return self._emit(op.cumsum(data, axis, wanted)) if shape(data) else data

        def _our_matmul(self, node: Any) -> Any:
            """In the dtype of the data: TVM's computes in float32 whatever comes."""
            return self._emit(op.matmul(self.env[node.args[0]], self.env[node.args[1]]))

        def _our_linear(self, node: Any) -> Any:
            data, weight = self._argument(node, 0, "input"), self._argument(node, 1, "weight")
            bias = self._argument(node, 2, "bias")
            turned = self._emit(op.permute_dims(weight)) if len(shape(weight)) > 1 else weight
            product = self._emit(op.matmul(data, turned))
            return product if bias is None else self._emit(op.add(product, bias))

        def _our_addmm(self, node: Any) -> Any:
            if node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("beta", 1) != 1:
                return super()._addmm(node)
            bias, left, right = (self.env[argument] for argument in node.args)
            return self._emit(op.add(self._emit(op.matmul(left, right)), bias))

        def _our_full(self, node: Any) -> Any:
            """A value of every element in the dtype that torch infers from it."""
            wanted = self._convert_data_type(node.meta["val"].dtype)
            return relax.const(np.full(node.args[0], node.args[1], wanted), wanted)

        def _our_clamp(self, node: Any) -> Any:
            bounds = self._argument(node, 1, "min"), self._argument(node, 2, "max")
            return self._limited(self.env[node.args[0]], *bounds)

        def _our_clamp_max(self, node: Any) -> Any:
            return self._limited(self.env[node.args[0]], None, self._argument(node, 1, "max"))

        def _limited(self, data: Any, low: Any, high: Any) -> Any:
            """By the bounds that there are; TVM's takes infinity for others, even of integers."""
            if low is not None and high is not None and "float" in dtype(data):
                return self._emit(op.clip(data, low, high))
            for bound, limited in ((low, op.maximum), (high, op.minimum)):
                if bound is not None:
                    data = self._emit(limited(data, relax.const(bound, dtype(data))))
            return data

        def _wrapped(self, indices: Any, extent: int) -> Any:
            """``indices`` with those below zero counted from the end."""
            if isinstance(indices, GenericConst):
                known = indices.value.numpy()
                return relax.const(np.where(known < 0, known + extent, known), str(known.dtype))
            zero, end = (relax.const(value, dtype(indices)) for value in (0, extent))
            negative = self._emit(op.less(indices, zero))
            return self._emit(op.where(negative, self._emit(op.add(indices, end)), indices))

        def _our_index(self, node: Any) -> Any:
            """Indices that may be negative; TVM reads before the data where they are."""
            data, indices = self.env[node.args[0]], list(node.args[1])
            for axis, index in enumerate(indices):
                value = None if index is None else self.env[index]
                if value is None or dtype(value) == "bool":
                    continue
                self.env[index] = self._wrapped(value, shape(data)[axis])
            places = [axis for axis, index in enumerate(indices) if index is not None]
            if len(places) == 1 and dtype(self.env[indices[places[0]]]) != "bool":
                index = self.env[indices[places[0]]]
                return self._emit(op.take(data, index, places[0], mode="clip"))
            return super()._index_tensor(node)

        def _our_select(self, node: Any) -> Any:
            data, axis = self.env[node.args[0]], int(node.args[1])
            index = int(node.args[2]) % shape(data)[axis]
            place = relax.const(index, "int64")
            return self._emit(op.take(data, place, axis % len(shape(data)), mode="clip"))

        def _our_embedding(self, node: Any) -> Any:
            """Clipped, where TVM's reads whatever lies where an index that is too large points."""
            table, indices = self.env[node.args[0]], self.env[node.args[1]]
            return self._emit(op.take(table, indices, 0, mode="clip"))

        def _our_index_copy(self, node: Any) -> Any:
            """Each row asks which source it gets, so that the kernel is an ordinary loop.

            That is how a decoder writes keys and values to its cache; TVM's scatter is a body of
            statements, which no schedule understands.
            """
            data, axis = self.env[node.args[0]], int(node.args[1])
            indices, source = self.env[node.args[2]], self.env[node.args[3]]
            extents = shape(data)
            axis %= len(extents)
            kind = dtype(indices)
            indices = self._wrapped(indices, extents[axis])
            count = math.prod(shape(indices))
            rows = relax.const(np.arange(extents[axis], dtype=kind).reshape(-1, 1), kind)
            placed = self._emit(op.reshape(indices, [1, count]))
            hits = self._emit(op.equal(rows, placed))
            # Of equal indices the last one wins.
            numbers = relax.const(np.arange(count, dtype=kind).reshape(1, -1), kind)
            none = relax.const(-1, kind)
            found = self._emit(op.max(self._emit(op.where(hits, numbers, none)), 1))
            aligned = [extents[axis] if place == axis else 1 for place in range(len(extents))]
            written = self._emit(op.reshape(found, aligned))
            written = self._emit(op.greater_equal(written, relax.const(0, kind)))
            if count > 1:
                taken = self._emit(op.maximum(found, relax.const(0, kind)))
                source = self._emit(op.take(source, taken, axis, mode="clip"))
            return self._emit(op.where(written, source, data))

        def _our_attention(self, node: Any) -> Any:
            """As products and a softmax, the form that graph spaces make one kernel of.

            Rows that are masked altogether are zero, as torch's are.
            """
            query, key, value = (self.env[argument] for argument in node.args[:3])
            mask = self._argument(node, 3, "attn_mask")
            causal = self._argument(node, 5, "is_causal", False)
            scale = self._argument(node, 6, "scale")
            if self._argument(node, 7, "enable_gqa", False):
                groups = shape(query)[-3] // shape(key)[-3]
                key, value = (self._emit(op.repeat(each, groups, -3)) for each in (key, value))
            kind, rank = dtype(query), len(shape(query))
            turned = self._emit(op.permute_dims(key, [*range(rank - 2), rank - 1, rank - 2]))
            scores = self._emit(op.matmul(query, turned))
            factor = 1 / math.sqrt(shape(query)[-1]) if scale is None else float(scale)
            scores = self._emit(op.multiply(scores, relax.const(factor, kind)))
            kept = None
            if causal:
                allowed = np.tril(np.ones(shape(scores)[-2:], bool))
                mask = relax.const(np.where(allowed, 0, -np.inf).astype(kind), kind)
            elif mask is not None:
                bias, zero = mask, relax.const(0.0, kind)
                if dtype(mask) == "bool":
                    lowest = relax.const(-np.inf, kind)
                    bias = self._emit(op.where(mask, zero, lowest))
                    kept = mask
                else:
                    kept = self._emit(op.greater(mask, relax.const(-np.inf, kind)))
                mask = bias
            if mask is not None:
                scores = self._emit(op.add(scores, mask))
            result = self._emit(op.matmul(self._emit(op.nn.softmax(scores, -1)), value))
            if kept is not None:
                some = self._emit(op.max(self._emit(op.astype(kept, "int8")), -1, keepdims=True))
                any_kept = self._emit(op.greater(some, relax.const(0, "int8")))
                result = self._emit(op.where(any_kept, result, relax.const(0.0, kind)))
            return result

    return Importer
