"""Where the kernels that need tiles set their shapes: each thread, in each turn of a loop."""

from __future__ import annotations

from typing import Any

from search_spaces.cpu.tile import BEGIN


def begun(module: Any, trace: str) -> Any:
    """``module`` with what its loops that are annotated so begin with (``tile.Tiles.functions``).

    No step of a schedule can write a call. ``trace`` is what ``module`` was made by.
    """
    if f'"{BEGIN}"' not in trace:
        return module
    import tvm
    import tvm_ffi
    from tvm import tirx

    def begins(loop: Any) -> Any:
        if BEGIN not in loop.annotations:
            return loop
        kept = {key: value for key, value in loop.annotations.items() if key != BEGIN}
        call = tirx.call_extern("int32", f"{loop.annotations[BEGIN]}_begin")
        body = tirx.SeqStmt([tirx.Evaluate(call), loop.body])
        return tirx.For(
            loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, kept
        )

    function = module["main"]
    body = tvm_ffi.structural_map(function.body, (tirx.For, begins))
    return tvm.IRModule({"main": function.with_body(body)}, attrs=module.attrs)
