"""Channels-last: rewrites a model's image operators from NCHW to NHWC.

In NHWC every convolution is a contraction whose output channels are contiguous, a 1x1
convolution is a plain matrix product, and no channel count needs padding to a block. The rewrite
walks the bindings once and keeps, for each tensor, the form it has; a conversion is emitted only
where an operator that has no channels-last form asks for the original one. What convolutions along
one axis make, [N, C, L], is an image of one row here: [N, 1, L, C].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from autotune.graph.forms import (
    PLACES,
    TO_FIRST,
    TO_LAST,
    image_shape,
    moved,
    rows_dropped,
    window,
)
from autotune.graph.transposed import as_convolution, can_be_convolution
from search_spaces.graph.expressions import array, is_constant, mapped, shape_of
from search_spaces.graph.origins import NamingBuilder, names_of

_UNARY = frozenset(
    "relax." + name
    for name in [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "bitwise_not",
        "ceil",
        "clip",
        "cos",
        "cosh",
        "erf",
        "exp",
        "floor",
        "isfinite",
        "isinf",
        "isnan",
        "log",
        "logical_not",
        "negative",
        "round",
        "rsqrt",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "trunc",
        "astype",
        "nn.relu",
        "nn.relu6",
        "nn.leakyrelu",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.selu",
        "nn.silu",
        "nn.softplus",
    ]
)
_BROADCAST = frozenset(
    "relax." + name
    for name in [
        "add",
        "subtract",
        "multiply",
        "divide",
        "floor_divide",
        "power",
        "mod",
        "floor_mod",
        "maximum",
        "minimum",
        "equal",
        "not_equal",
        "less",
        "less_equal",
        "greater",
        "greater_equal",
        "logical_and",
        "logical_or",
        "logical_xor",
        "where",
    ]
)
_REDUCE = {
    f"relax.{name}": getattr(relax.op, name) for name in ("max", "mean", "min", "prod", "sum")
}


def channels_last(module: tvm.IRModule) -> tvm.IRModule:
    """Return ``module`` with the image operators of "main" in NHWC; signature unchanged."""
    return _Rewriter(module).run()


class _Rewriter:
    """One walk over "main". ``first`` and ``last`` hold the forms each tensor exists in."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.module = module
        others = {v: f for v, f in module.functions_items() if v.name_hint != "main"}
        self.builder = NamingBuilder(tvm.IRModule(others, attrs=module.attrs))
        self.first: dict[Any, Any] = {}
        self.last: dict[Any, Any] = {}
        self.handlers: dict[str, Callable[[Any], Any]] = {
            "relax.nn.conv1d": self._convolution,
            "relax.nn.conv2d": self._convolution,
            "relax.nn.conv1d_transpose": self._transposed,
            "relax.nn.conv2d_transpose": self._transposed,
            "relax.nn.max_pool1d": self._pool,
            "relax.nn.avg_pool1d": self._pool,
            "relax.nn.max_pool2d": self._pool,
            "relax.nn.avg_pool2d": self._pool,
            "relax.nn.adaptive_avg_pool2d": self._adaptive,
            "relax.image.resize2d": self._resize,
            "relax.concat": self._concat,
            "relax.nn.softmax": self._softmax,
            "relax.nn.pad": self._pad,
        }

    def run(self) -> tvm.IRModule:
        main = self.module["main"]
        with self.builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
            with self.builder.dataflow():
                for block in main.body.blocks:
                    for binding in block.bindings:
                        self._bind(binding)
                result = self.builder.emit_output(self._plain(main.body.body))
            self.builder.emit_func_output(result)
        return self.builder.get()

    # -- the forms of a tensor

    def _bind(self, binding: Any) -> None:
        value = binding.value
        self.builder.origin = names_of(value)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            name = value.op.name
            handler = self.handlers.get(name)
            if handler is None and name in _UNARY and self._image(value.args[0]):
                handler = self._unary
            elif handler is None and name in _BROADCAST:
                handler = self._broadcast
            elif handler is None and name in _REDUCE:
                handler = self._reduce
            made = handler(value) if handler else None
            if made is not None:
                self.last[binding.var] = self.builder.emit(made)
                return
        if isinstance(value, relax.Var) or is_constant(value):
            self._alias(binding.var, value)
            return
        if self._brings_first(value):
            # Models from frameworks with the channels last begin so: undone, nothing is moved.
            self.last[binding.var] = self._plain(value.args[0])
            return
        merged = self._merged(value)
        made = self._plain(value) if merged is None else merged  # expressions have no truth value
        self.first[binding.var] = self.builder.emit(made)

    def _brings_first(self, value: Any) -> bool:
        """Whether ``value`` turns a tensor of four axes, that is no image yet, as images are."""
        return (
            isinstance(value, relax.Call)
            and value.op == tvm.ir.Op.get("relax.permute_dims")
            and value.attrs.axes is not None
            and tuple(int(axis) for axis in value.attrs.axes) == TO_FIRST
            and shape_of(value.args[0]) is not None
            and not self._image(value.args[0])
            and not is_constant(value.args[0])
        )

    def _merged(self, value: Any) -> Any:
        """A permutation of a channels-last tensor, as one permutation of what exists already."""
        if not isinstance(value, relax.Call) or value.op != tvm.ir.Op.get("relax.permute_dims"):
            return None
        shape = shape_of(value.args[0])
        if not self._image(value.args[0]) or value.attrs.axes is None or shape is None:
            return None
        axes = [PLACES[len(shape)][int(axis)] for axis in value.attrs.axes]
        if len(shape) == 4:
            return moved(self.last[value.args[0]], tuple(axes))
        row = self.builder.emit(rows_dropped(self.last[value.args[0]]))
        kept = [max(axis - 1, 0) for axis in axes]  # without the one row
        return row if kept == [0, 1, 2] else relax.op.permute_dims(row, kept)

    def _alias(self, var: Any, value: Any) -> None:
        for forms in (self.first, self.last):
            if value in forms:
                forms[var] = forms[value]
        if var not in self.last and var not in self.first:
            self.first[var] = value

    def _plain(self, expr: Any) -> Any:
        """``expr`` with every tensor in it in its original form."""
        return mapped(expr, self._original)

    def _original(self, leaf: Any) -> Any:
        if not isinstance(leaf, relax.Var):
            return leaf
        if leaf not in self.first and leaf in self.last:
            self.first[leaf] = self.builder.emit(self._first(leaf))
        return self.first.get(leaf, leaf)

    def _image(self, expr: Any) -> bool:
        return expr in self.last

    def _places(self, expr: Any) -> tuple[int, ...] | None:
        """Where the axes of ``expr`` are in its channels-last form; None if it has none."""
        return PLACES[len(shape_of(expr) or ())] if self._image(expr) else None

    def _first(self, expr: Any) -> Any:
        """A tensor that exists in channels-last form, in its original one."""
        if len(shape_of(expr) or ()) == 4:
            return moved(self.last[expr], TO_FIRST)
        row = self.builder.emit(rows_dropped(self.last[expr]))
        return relax.op.permute_dims(row, [0, 2, 1])

    def _last(self, expr: Any) -> Any:
        """``expr``, a tensor of four axes or three, in channels-last form."""
        if is_constant(expr):
            return self._turned(expr, TO_LAST)
        if expr not in self.last:
            self.last[expr] = self._turned(expr, TO_LAST)
        return self.last[expr]

    def _turned(self, expr: Any, axes: tuple[int, ...]) -> Any:
        """``expr`` as an image, its four axes in another order."""
        shape = image_shape(shape_of(expr) or [])
        if is_constant(expr):
            data = np.transpose(array(expr).reshape(shape), axes).copy()
            return relax.const(data, str(data.dtype))  # or float64 becomes float32
        value = self._plain(expr)
        if shape_of(expr) != shape:
            value = self.builder.emit(relax.op.reshape(value, shape))
        return self.builder.emit(moved(value, axes))

    # -- operators

    def _unary(self, call: Any) -> Any:
        rest = [self._plain(arg) for arg in call.args[1:]]
        return relax.Call(call.op, [self._last(call.args[0]), *rest], call.attrs, call.ty_args)

    def _broadcast(self, call: Any) -> Any:
        if not any(self._image(arg) for arg in call.args):
            return None
        operands = []
        shapes = [shape_of(arg) for arg in call.args]
        rank = max(len(shape or ()) for shape in shapes)
        if rank not in PLACES:
            return None
        for arg, shape in zip(call.args, shapes, strict=True):
            if shape is None or (self._image(arg) and len(shape) != rank):
                return None
            if len(shape) == rank:
                operands.append(self._last(arg))
            elif all(extent == 1 for extent in shape):
                operands.append(self._plain(arg))
            elif is_constant(arg):
                data = array(arg).reshape((1,) * (rank - len(shape)) + tuple(shape))
                operands.append(self._last(relax.const(data, str(data.dtype))))
            else:
                return None
        return relax.Call(call.op, operands, call.attrs, call.ty_args)

    def _convolution(self, call: Any) -> Any:
        a = call.attrs
        layouts = (a.data_layout, a.kernel_layout)
        if layouts not in (("NCHW", "OIHW"), ("NCW", "OIW")) or shape_of(call.args[1]) is None:
            return None
        strides, dilation, padding = window(a.strides, a.dilation, a.padding)
        return relax.op.nn.conv2d(
            self._last(call.args[0]),
            self._turned(call.args[1], (2, 3, 1, 0)),
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=a.groups,
            data_layout="NHWC",
            kernel_layout="HWIO",
            out_dtype=a.out_dtype or None,
        )

    def _transposed(self, call: Any) -> Any:
        if not is_constant(call.args[1]) or not can_be_convolution(call):
            return None
        return as_convolution(self.builder, self._last(call.args[0]), call)

    def _pool(self, call: Any) -> Any:
        a = call.attrs
        if a.layout not in ("NCHW", "NCW") or not self._image(call.args[0]):
            return None
        kind = call.op.name.removeprefix("relax.nn.").replace("1d", "2d")
        strides, dilation, padding = window(a.strides, a.dilation, a.padding)
        return getattr(relax.op.nn, kind)(
            self._last(call.args[0]),
            pool_size=[1] * (2 - len(a.pool_size)) + list(a.pool_size),
            strides=strides,
            padding=padding,
            dilation=dilation,
            ceil_mode=a.ceil_mode,
            count_include_pad=a.count_include_pad,
            layout="NHWC",
        )

    def _adaptive(self, call: Any) -> Any:
        a = call.attrs
        if a.layout != "NCHW" or not self._image(call.args[0]):
            return None
        size = list(a.output_size) if a.output_size is not None else None
        if size is not None and all(int(extent) == 1 for extent in size):
            return relax.op.mean(self._last(call.args[0]), axis=[1, 2], keepdims=True)
        return relax.op.nn.adaptive_avg_pool2d(
            self._last(call.args[0]), output_size=size, layout="NHWC"
        )

    def _resize(self, call: Any) -> Any:
        a = call.attrs
        if a.layout != "NCHW" or not self._image(call.args[0]):
            return None
        return relax.op.image.resize2d(
            self._last(call.args[0]),
            call.args[1],
            roi=[float(value) for value in a.roi],
            layout="NHWC",
            method=a.method,
            coordinate_transformation_mode=a.coordinate_transformation_mode,
            rounding_method=a.rounding_method,
            cubic_alpha=float(a.cubic_alpha),
            cubic_exclude=int(a.cubic_exclude),
            extrapolation_value=float(a.extrapolation_value),
        )

    def _concat(self, call: Any) -> Any:
        fields = getattr(call.args[0], "fields", None)
        if fields is None or not any(self._image(field) for field in fields):
            return None
        ranks = {len(shape_of(field) or ()) for field in fields}
        (rank, *others) = ranks
        if others or rank not in PLACES:
            return None
        axis = PLACES[rank][int(call.attrs.axis) % rank]
        return relax.op.concat([self._last(field) for field in fields], axis)

    def _softmax(self, call: Any) -> Any:
        places = self._places(call.args[0])
        if places is None:
            return None
        axis = places[int(call.attrs.axis) % len(places)]
        return relax.op.nn.softmax(self._last(call.args[0]), axis)

    def _reduce(self, call: Any) -> Any:
        a = call.attrs
        places = self._places(call.args[0])
        if places is None or not a.keepdims or a.axis is None:
            return None
        axes = sorted(places[int(axis) % len(places)] for axis in a.axis)
        return _REDUCE[call.op.name](self._last(call.args[0]), axis=axes, keepdims=True)

    def _pad(self, call: Any) -> Any:
        a = call.attrs
        width = [int(value) for value in a.pad_width]
        if not self._image(call.args[0]) or a.pad_mode != "constant" or len(width) != 8:
            return None
        pairs = [width[2 * axis : 2 * axis + 2] for axis in TO_LAST]
        value = float(a.pad_value)
        return relax.op.nn.pad(self._last(call.args[0]), sum(pairs, []), "constant", value)
