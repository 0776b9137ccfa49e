"""Weights beside the program: in a file that is mapped into memory, and that programs can share.

TVM keeps the constants of a program inside of its library, and holds them twice once it is loaded
(four times while it is). Here large ones become further parameters of it, and whatever is equal
among them is in the file once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.artifact.manifest import FileEntry
from autotune.runtime import ALIGNMENT, file_digest

LEAST_BYTES = 256
"""Constants smaller than this stay in the program: a parameter costs more than they do."""

Array = np.ndarray[Any, Any]


def lifted(module: Any) -> tuple[Any, list[Any]]:
    """The IRModule ``module`` with the weights of ``main`` as further parameters, and those.

    They are the tensors that the module held, in the order in which ``main`` uses them. What is
    returned as it is stays, and so does what numpy has no type for.
    """
    from tvm import relax

    from autotune.graph.constants import NUMPY_DTYPES
    from search_spaces.graph.expressions import is_constant, mapped

    main = module["main"]
    parameters: dict[Any, Any] = {}
    weights: list[Any] = []

    def leaf(expr: Any) -> Any:
        if not is_constant(expr):
            return expr
        found = parameters.get(expr)
        if found is None:
            dtype, count = str(expr.value.dtype), math.prod(expr.value.shape)
            if dtype not in NUMPY_DTYPES or count * np.dtype(dtype).itemsize < LEAST_BYTES:
                return expr
            found = parameters[expr] = relax.Var(f"weight_{len(weights)}", expr.ty)
            weights.append(expr.value)
        return found

    blocks = []
    for block in main.body.blocks:
        bindings = []
        for binding in block.bindings:
            # A constant that only gets a name may be an output: nobody may write to that.
            if isinstance(binding, relax.VarBinding) and isinstance(binding.value, relax.Call):
                binding = relax.VarBinding(binding.var, mapped(binding.value, leaf))
            bindings.append(binding)
        blocks.append(type(block)(bindings))
    body = relax.SeqExpr(blocks, main.body.body)
    inputs = [*main.params, *parameters.values()]
    made = relax.Function(inputs, body, main.ret_ty, main.is_pure, main.attrs)
    result = module.clone()
    result.update_func(module.get_global_var("main"), made)
    return relax.transform.Normalize()(result), weights


class SharedWeights:
    """What several programs are given, each distinct array once."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, Array]] = []
        self._places: dict[bytes, int] = {}
        self._end = 0

    def add(self, tensors: Sequence[Any]) -> tuple[dict[str, Any], ...]:
        """Where each of ``tensors`` (TVM's) lies in the file: offset in bytes, shape, dtype."""
        entries = []
        for one in map(np.from_dlpack, tensors):  # where they are, not copied
            digest = hashlib.sha256(one.data).digest()
            if digest not in self._places:
                self._places[digest] = self._end
                self._arrays.append((self._end, one))
                self._end += -(-one.nbytes // ALIGNMENT) * ALIGNMENT
            place = {"offset": self._places[digest], "shape": one.shape, "dtype": one.dtype.name}
            entries.append(place)
        return tuple(entries)

    def write(self, path: Path) -> FileEntry:
        """Write the file: one array of bytes, as numpy reads them without copying."""
        # Never empty: that could not be mapped.
        length = max(self._end, ALIGNMENT)
        header = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for offset, data in self._arrays:
                file.seek(start + offset)
                file.write(data.data)
            file.truncate(start + length)
        return FileEntry(file_digest(path), path.stat().st_size)
