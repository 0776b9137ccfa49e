"""Imports TVM without what nobody here needs."""

from __future__ import annotations

import sys
import types

_INTRINSICS = "tvm.s_tir.tensor_intrin"


def light_import() -> None:
    """Import TVM without the tensor intrinsics of other processors: 18 s of CPU to parse.

    TVM imports that package where a MetaSchedule context is made. Here an empty package takes its
    place, from which ``tvm.s_tir.tensor_intrin.x86`` and others are still imported by name.
    """
    import tvm
    from tvm.s_tir import __path__ as parent

    if _INTRINSICS in sys.modules:
        return
    package = types.ModuleType(_INTRINSICS)
    package.__path__ = [f"{parent[0]}/tensor_intrin"]
    sys.modules[_INTRINSICS] = package
    tvm.s_tir.tensor_intrin = package
