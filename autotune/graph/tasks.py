"""Which unique workloads a fused module has, and how often one inference calls each."""

from __future__ import annotations

import re
from collections import Counter

import tvm
from tvm import s_tir, tirx

from autotune.graph.origins import kernel_calls
from search_spaces.analysis import workload
from search_spaces.task import Task


def extract_tasks(module: tvm.IRModule) -> tuple[tuple[Task, ...], dict[str, str]]:
    """Return the tasks of ``module`` in order of first call, and function name -> workload key.

    PrimFuncs that are called but cannot be described (symbolic shapes, opaque bodies) are left
    out: they are compiled as they are.
    """
    calls = Counter(name for name, _ in kernel_calls(module))
    tasks: dict[str, Task] = {}
    functions: dict[str, str] = {}
    for name, count in calls.items():
        function = module[name]
        if not isinstance(function, tirx.PrimFunc) or not _static(function):
            continue
        found = workload(function, display_name(name))
        functions[name] = found.key
        if found.key in tasks:
            known = tasks[found.key]
            tasks[found.key] = Task(known.workload, known.calls + count, known.flops, known.bytes)
            continue
        tasks[found.key] = Task(
            workload=found,
            calls=count,
            flops=float(s_tir.analysis.estimate_tir_flops(tvm.IRModule({"main": function}))),
            bytes=sum(argument.bytes for argument in found.arguments),
        )
    return tuple(tasks.values()), functions


def display_name(name: str) -> str:
    """A function's name without what TVM adds: "fused_conv2d3_add7_relu1" -> "conv2d_add_relu"."""
    parts = name.removeprefix("fused_").split("_")
    words = [re.sub(r"(?<=[a-z])\d+$", "", part) if part != "conv2d" else part for part in parts]
    return "_".join(re.sub(r"^(conv2d|conv1d|pool2d|resize2d)\d*$", r"\1", w) for w in words)


def _static(function: tirx.PrimFunc) -> bool:
    """Whether every parameter is a buffer of known shape and the body is made of blocks."""
    if not all(isinstance(p.ty, tirx.BufferType) for p in function.params):
        return False
    shapes = [extent for p in function.params for extent in p.shape]
    if not all(isinstance(extent, tirx.IntImm) for extent in shapes):
        return False
    if getattr(function.body, "block", None) is None or not has_blocks(function):
        return False
    schedule = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask=0)
    return len(schedule.get_child_blocks(schedule.get_sblock("root"))) > 0


def has_blocks(function: tirx.PrimFunc) -> bool:
    """Whether the body is a tree of blocks: what TOPI writes by hand, a scatter, is none."""
    block = getattr(function.body, "block", None)
    return block is None or block.name_hint == "root"


def rooted(module: tvm.IRModule) -> tvm.IRModule:
    """``module`` with a block around every function that has none, as TVM's passes ask for.

    Only when nothing is scheduled any more: the block inside does not say what it reads or writes.
    """
    result = module.clone()
    for variable, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc) and not has_blocks(function):
            block = s_tir.SBlock([], [], [], "root", function.body)
            result.update_func(variable, function.with_body(s_tir.SBlockRealize([], True, block)))
    return result
