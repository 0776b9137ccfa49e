"""Rewriting what Relax patterns match in "main"."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tvm
from tvm import relax
from tvm.relax.dpl import rewrite_call

from autotune.graph.origins import kept

Rewrite = Callable[[Any, Any], Any]
"""What takes the place of a call that matched, from the call and the matches by pattern."""


def rewrite_main(module: tvm.IRModule, rewrites: Iterable[tuple[Any, Rewrite]]) -> tvm.IRModule:
    """``module`` with each pattern rewritten wherever it matches, one pattern after the other."""
    main = before = module["main"]
    for pattern, rewrite in rewrites:
        main = rewrite_call(pattern, rewrite, main)
    if main.same_as(before):
        return module
    result = module.clone()
    result.update_func(module.get_global_var("main"), main)
    result = relax.transform.DeadCodeElimination()(relax.transform.Normalize()(result))
    return kept(module, result)
