"""Our own computations for the operators whose stock ones schedule badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx, topi


def conv2d(builder: Any, call: Any) -> Any:
    """Convolution in NHWC with HWIO weights as one reduction; anything else stays with TOPI."""
    a = call.attrs
    if a.data_layout != "NHWC" or a.kernel_layout != "HWIO":
        return builder.call_te(
            topi.nn.conv,
            call.args[0],
            call.args[1],
            [int(s) for s in a.strides],
            [int(p) for p in a.padding],
            [int(d) for d in a.dilation],
            int(a.groups),
            a.data_layout,
            a.kernel_layout,
            a.out_dtype or None,
        )
    return builder.call_te(
        _conv2d_nhwc,
        call.args[0],
        call.args[1],
        strides=tuple(int(s) for s in a.strides),
        pads=tuple(int(p) for p in a.padding),
        dilation=tuple(int(d) for d in a.dilation),
        groups=int(a.groups),
        primfunc_name_hint="conv2d" if int(a.groups) == 1 else "grouped_conv2d",
    )


def _conv2d_nhwc(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    batch, height, width, channels = (int(v) for v in data.shape)
    kh, kw, per_group, outputs = (int(v) for v in kernel.shape)
    rows = (height + pads[0] + pads[2] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    if any(pads):
        data = topi.nn.pad(
            data, [0, pads[0], pads[1], 0], [0, pads[2], pads[3], 0], 0.0, name="pad"
        )
    # Axes of extent one are left out: fewer loops to schedule, and one key for equal work.

    ky = te.reduce_axis((0, kh), "ky") if kh > 1 else None
    kx = te.reduce_axis((0, kw), "kx") if kw > 1 else None
    depthwise = groups == channels and per_group == 1
    kc = None if depthwise else te.reduce_axis((0, per_group), "kc")
    taps = [axis for axis in (ky, kx, kc) if axis is not None]
    y = ky if ky is not None else 0
    x = kx if kx is not None else 0

    def product(n: Any, h: Any, w: Any, o: Any) -> Any:
        if depthwise:
            channel = o if outputs == channels else tirx.floordiv(o, outputs // channels)
            inner: Any = 0
        else:
            inner = kc
            channel = kc
            if groups > 1:
                channel = tirx.floordiv(o, outputs // groups) * per_group + kc
        pixel = data[n, h * strides[0] + y * dilation[0], w * strides[1] + x * dilation[1], channel]
        value = pixel * kernel[y, x, inner, o]
        return te.sum(value, axis=taps) if taps else value

    return te.compute((batch, rows, columns, outputs), product, name="conv")


def _float32(function: Callable[..., te.Tensor]) -> Callable[[Any, Any], Any]:
    """A legaliser that uses ``function`` on float32 and leaves other dtypes to TVM."""

    def legalise(builder: Any, call: Any) -> Any:
        if str(call.args[0].ty.dtype) != "float32":
            return call.op.get_attr("FLegalize")(builder, call)
        return builder.call_te(
            function, call.args[0], primfunc_name_hint=call.op.name.rpartition(".")[2]
        )

    return legalise


def _sigmoid(x: te.Tensor) -> te.Tensor:
    one = tirx.const(1.0, "float32")
    e = topi.fast_exp(topi.negative(x))
    return te.compute(x.shape, lambda *i: one / (one + e[i]), name="sigmoid", tag=topi.tag.ELEMWISE)


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


def _gelu(x: te.Tensor) -> te.Tensor:
    half, root = tirx.const(0.5, "float32"), tirx.const(0.5**0.5, "float32")
    inner = topi.add(topi.fast_erf(topi.multiply(x, root)), tirx.const(1.0, "float32"))
    return topi.multiply(topi.multiply(x, half), inner)


def _softmax(builder: Any, call: Any) -> Any:
    if str(call.args[0].ty.dtype) != "float32":
        return call.op.get_attr("FLegalize")(builder, call)
    return builder.call_te(
        topi.nn.fast_softmax,
        call.args[0],
        axis=int(call.attrs.axis),
        primfunc_name_hint="softmax",
    )


# LLVM calls the C library once for each element of a vector of exp, erf or tanh. The polynomials
# of TOPI (Cephes for exp, Eigen's rational functions for erf and tanh) stay in vector registers,
# and are right to a few units in the last place.
TABLE = {
    "relax.nn.conv2d": conv2d,
    "relax.exp": _float32(topi.fast_exp),
    "relax.erf": _float32(topi.fast_erf),
    "relax.tanh": _float32(topi.fast_tanh),
    "relax.sigmoid": _float32(_sigmoid),
    "relax.nn.silu": _float32(_silu),
    "relax.nn.gelu": _float32(_gelu),
    "relax.nn.softmax": _softmax,
}
