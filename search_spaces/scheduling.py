"""From a workload and a candidate, or a stored trace, to a scheduled function.

The only place where schedules are made, for measuring and for shipping alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.dot import register_named
from search_spaces.cpu.tile_begin import begun
from search_spaces.cpu.tile_steps import register_tiles
from search_spaces.registry import space_named
from search_spaces.task import Candidate, Target, Task


@dataclass(frozen=True)
class Scheduled:
    """A scheduled function and how to make it again.

    ``module`` is a ``tvm.IRModule`` with PrimFunc "main", whose arguments are the workload's;
    blocks that pack weights are still inside, marked as such. ``trace`` is JSON text.
    """

    module: Any = field(repr=False)
    trace: str = field(repr=False)


def load_function(task: Task) -> Any:
    """The unscheduled PrimFunc of ``task``, in an IRModule as "main"."""
    import tvm

    return tvm.ir.load_json(task.workload.function)


def schedule(task: Task, target: Target, candidate: Candidate) -> Scheduled:
    """Apply ``candidate`` to ``task``.

    Raises ``InvalidParameters`` where the space refuses or is installed in another version,
    ``UnknownSpace`` where it is not installed, and TVM's own errors where a primitive fails.
    """
    import tvm
    from tvm import s_tir

    space = _installed(candidate.space, candidate.version)
    with tvm.target.Target(target.tvm()):
        plain = load_function(task)
        function = space.rewrite(plain, task, target, candidate.parameters)
        made = s_tir.Schedule(function, debug_mask=0, error_render_level="fast")
        space.apply(made, task, target, candidate.parameters)
    text = trace_text(made.trace)
    if function is not plain:
        told = {"space": space.name, "version": space.version}
        rewritten = {**told, "parameters": dict(candidate.parameters)}
        text = json.dumps({"rewritten": rewritten, "trace": json.loads(text)})
    return Scheduled(begun(made.mod, text), text)


def replay(task: Task, target: Target, trace: str) -> Scheduled:
    """Make the schedule of ``trace`` again, without its space.

    Only a trace of a rewritten function needs the space that rewrote it: ``UnknownSpace`` where
    that is not installed, ``InvalidParameters`` in another version. Raises TVM's errors, too.
    """
    import tvm
    from tvm import s_tir

    register_named(trace)
    register_tiles(trace)
    steps = json.loads(trace)
    with tvm.target.Target(target.tvm()):
        function = load_function(task)
        if isinstance(steps, dict):
            by = steps["rewritten"]
            space = _installed(by["space"], by["version"])
            function = space.rewrite(function, task, target, by["parameters"])
            steps = steps["trace"]
        made = s_tir.Schedule(function, debug_mask=0, error_render_level="fast")
        s_tir.schedule.Trace.apply_json_to_schedule(steps, made)
    return Scheduled(begun(made.mod, trace), trace)


def _installed(name: str, version: int) -> SearchSpace:
    space = space_named(name)
    if space.version != version:
        raise InvalidParameters(f"{name} is installed in version {space.version}, not {version}")
    return space


def trace_text(trace: Any) -> str:
    """TVM's trace as JSON text, without the instructions that nothing depends on."""
    return json.dumps(_plain(trace.simplified(remove_postproc=False).as_json()))


def _plain(value: Any) -> Any:
    """TVM's containers and immediates as Python's, which json can write."""
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if hasattr(value, "value"):
        return value.value
    return [_plain(item) for item in value]
