"""Weights that are too many for a protobuf message, which ends at 2 GiB: they stay in their files.

The ONNX tools see such a weight as an input of its shape, so that nothing copies or serialises it.
Once the model is a Relax module, the files are mapped into memory and the weights bound.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def with_inputs(proto: Any) -> Any:
    """A copy of ``proto`` with inputs in place of the weights that are apart, after its own.

    ``proto`` itself where there are none.
    """
    from onnx import helper

    apart = [tensor for tensor in proto.graph.initializer if is_apart(tensor)]
    if not apart:
        return proto
    copy = type(proto)()
    copy.CopyFrom(proto)
    names = {tensor.name for tensor in apart}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in names]
    inputs = [value for value in copy.graph.input if value.name not in names]
    inputs += [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in apart
    ]
    for field, values in ((copy.graph.initializer, kept), (copy.graph.input, inputs)):
        whole = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(whole)
    return copy


def mapped(proto: Any, folder: Path) -> dict[str, np.ndarray]:
    """The weights that are apart, by name in the order of their inputs, as files in memory."""
    import numpy as np
    from onnx import helper

    found: dict[str, np.ndarray] = {}
    for tensor in proto.graph.initializer:
        if is_apart(tensor):
            entry = {item.key: item.value for item in tensor.external_data}
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            place = folder / entry["location"]
            found[tensor.name] = np.memmap(
                place, dtype, "r", int(entry.get("offset", 0)), tuple(tensor.dims)
            )
    return found


def bound(module: Any, weights: Mapping[str, np.ndarray]) -> Any:
    """``module`` with its last parameters bound to ``weights``, each copied once."""
    import tvm
    from tvm import relax

    if not weights:
        return module
    parameters = list(module["main"].params)[-len(weights) :]
    values = {
        parameter: tvm.runtime.tensor(array)
        for parameter, array in zip(parameters, weights.values(), strict=True)
    }
    return relax.transform.BindParams("main", values)(module)


def _bytes(tensor: Any) -> int:
    import math

    from onnx import helper

    try:
        item = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        return item * int(math.prod(tensor.dims))
    except KeyError:  # no known type, which the checker says
        return 0
