"""How PrimFuncs become machine code: the one set of settings for measuring and for shipping.

What is measured must be what is shipped, so both compile through this module and nothing else.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from search_spaces.light import light_import
from search_spaces.task import Target

__all__ = ["PIPELINE", "compile_functions", "light_import", "pass_context"]

PIPELINE = "s_tir"
"""TVM's lowering pipeline for scheduled PrimFuncs; ``relax.build`` takes it as ``tir_pipeline``."""


def pass_context(target: Target) -> AbstractContextManager[Any]:
    """The pass context in which every PrimFunc and every artifact of ``target`` is compiled."""
    import tvm

    # Callers pass what they were made for: the Relax function checks the shapes of its inputs once,
    # and a quarter of the time to compile a small kernel went into checking them again.
    config = {"tirx.disable_assert": True}
    return tvm.transform.PassContext(opt_level=3, config=config)  # type: ignore[no-any-return]


def compile_functions(module: Any, target: Target, *, level: int | None = None) -> Any:
    """Compile every PrimFunc of the IRModule ``module`` to a loaded ``tvm.runtime.Module``.

    Each function is reached by its global symbol. ``level`` is that of LLVM's own optimiser, TVM's
    default if None: at 0 and 1 its known wrong code for wide vectors does not appear. Raises TVM's
    errors. LLVM makes machine code when a function is first looked up.
    """
    import tvm

    spec = target.tvm()
    if level is not None:
        spec["opt-level"] = level
    with pass_context(target):
        return tvm.tirx.build(module, tvm.target.Target(spec), pipeline=PIPELINE)
