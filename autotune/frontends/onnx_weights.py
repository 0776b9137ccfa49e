"""Weights that are too many for a protobuf message, which ends at 2 GiB: they stay in their files.

The ONNX tools see such a weight as an input of its shape, so that nothing copies or serialises it.
Once the model is a Relax module, the files are mapped into memory and the weights bound. Tools that
look at shapes alone are given an outline, where no large weight is held at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOST = (1 << 31) - (1 << 26)
"""Bytes of weights in other files above which large ones stay there; below, all are loaded."""

LARGE = 1 << 20
"""Bytes of a weight that stays in its file; what is smaller may be a shape or a scale."""


def stay_apart(proto: Any) -> list[Any]:
    """The weights of ``proto`` that must not be loaded: large ones, where all are too many."""
    outside = [tensor for tensor in proto.graph.initializer if is_apart(tensor)]
    if sum(map(_bytes, outside)) < MOST:
        return []
    return [tensor for tensor in outside if _bytes(tensor) >= LARGE]


def is_apart(tensor: Any) -> bool:
    """Whether the numbers of a weight are in a file of their own."""
    from onnx import TensorProto

    return bool(tensor.data_location == TensorProto.EXTERNAL)


def is_large(tensor: Any) -> bool:
    """Whether the numbers of a weight are many, and are as many as its shape says."""
    size = _bytes(tensor)
    return size >= LARGE and (is_apart(tensor) or len(tensor.raw_data) == size)


def with_inputs(proto: Any, moved: Callable[[Any], bool] = is_apart) -> Any:
    """A copy of ``proto`` with inputs in place of the weights that are apart, after its own.

    Or of those that are ``moved``. ``proto`` itself where there are none.
    """
    from onnx import helper

    apart = [tensor for tensor in proto.graph.initializer if moved(tensor)]
    if not apart:
        return proto
    names = {tensor.name for tensor in apart}
    copy = type(proto)()
    _merge(copy, proto, "graph")
    # Not copied first: a message keeps the memory of what is taken out of it.
    _merge(copy.graph, proto.graph, "initializer", "input")
    kept = (tensor for tensor in proto.graph.initializer if tensor.name not in names)
    copy.graph.initializer.extend(kept)
    copy.graph.input.extend(value for value in proto.graph.input if value.name not in names)
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in apart
    )
    return copy


def outline(proto: Any) -> Any:
    """``proto``, or a copy whose large weights are empty: for who asks for shapes and names."""
    copy = with_inputs(proto, is_large)
    if copy is not proto:
        for tensor in filter(is_large, proto.graph.initializer):
            if is_apart(tensor):
                copy.graph.initializer.append(tensor)  # it says where its numbers are
            else:
                copy.graph.initializer.add(
                    name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
                )
    return copy


def _merge(copy: Any, message: Any, *without: str) -> None:
    """Copy the fields of ``message``, less those named."""
    for field, value in message.ListFields():
        if field.name not in without:
            part = getattr(copy, field.name)
            if hasattr(part, "MergeFrom"):
                part.MergeFrom(value)
            else:
                setattr(copy, field.name, value)


def mapped(proto: Any, folder: Path) -> Iterator[np.ndarray]:
    """The weights that are apart, in the order of their inputs, each as a file in memory."""
    import numpy as np
    from onnx import helper

    for tensor in proto.graph.initializer:
        if is_apart(tensor):
            entry = {item.key: item.value for item in tensor.external_data}
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            place = folder / entry["location"]
            yield np.memmap(place, dtype, "r", int(entry.get("offset", 0)), tuple(tensor.dims))


def bound(module: Any, weights: Iterator[np.ndarray]) -> Any:
    """``module`` with its last parameters bound to ``weights``, each copied once."""
    import tvm
    from tvm import relax

    # One after the other: what is mapped is in memory until the array is gone.
    tensors = [tvm.runtime.tensor(array) for array in weights]
    if not tensors:
        return module
    parameters = list(module["main"].params)[-len(tensors) :]
    values = dict(zip(parameters, tensors, strict=True))
    return relax.transform.BindParams("main", values)(module)


def _bytes(tensor: Any) -> int:
    import math

    from onnx import helper

    try:
        item = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        return item * int(math.prod(tensor.dims))
    except KeyError:  # no known type, which the checker says
        return 0
