"""One operator in three engines, each timed by its own clock: the kernel, not the call around it.

What only brings data into an engine's layout, and out of it, is left out everywhere: within a model
that happens at its borders. An engine is timed in turns; ``rounds`` gives the seconds of each turn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from autotune.errors import ModelError
from search_spaces.task import Task

WARM = 0.02
"""Seconds that an engine runs unmeasured when its turn begins."""

LEAST, MOST = 5, 1000
"""Calls in a turn."""

CUT = 0.5e-6
"""Seconds that a peer's clock loses on average: it tells whole microseconds, rounded down."""

COPIES = frozenset({"prim.if_then_else", "tirx.if_then_else", "Cast", "Select"})
"""What a block may do and still only copy."""

REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
"""Nodes of ONNX Runtime that change the layout at the border."""

BORDER = frozenset({"Reorder", "Parameter", "Result", "Constant", "Input", "Output"})
"""The same of OpenVINO, and those that do nothing."""

SKIPPED, TIMED = 5, 15
"""OpenVINO: calls of a freshly compiled model, at first not counted, then counted."""

FINE = 0.02
"""OpenVINO: the error of one sample, as a share of it, that is aimed at."""


class Timed(Protocol):
    """An operator in an engine."""

    def turn(self, seconds: float) -> None:
        """Run for about so long, after some calls that are not counted."""

    def rounds(self) -> list[list[float]]:
        """Seconds of single calls (or means of a few), by turn. Called once, at the end."""


def counted(tasks: Sequence[Task]) -> list[Task]:
    """Those of ``tasks``, made from one operator, that are it, and no conversions around it."""
    computing = [task for task in tasks if _computes(task)]
    if computing:
        return computing
    # The operator is a copy itself: one tensor of as many elements is then a conversion, unless
    # there is nothing else.
    return [task for task in tasks if not _permutes(task)] or list(tasks)


def _computes(task: Task) -> bool:
    blocks = task.workload.blocks
    return not blocks or any(name not in COPIES for b in blocks for name, _ in b.ops)


def _permutes(task: Task) -> bool:
    sizes = [math.prod(argument.shape) for argument in task.workload.arguments]
    return len(sizes) == 2 and sizes[0] == sizes[1]


class Ours:
    """What our passes make of an operator: each of ``tasks`` with its schedule, data hot.

    ``chosen`` holds the schedules from a database; other tasks get their default.
    """

    def __init__(self, tasks: Sequence[Task], target: Any, chosen: Mapping[str, Any]) -> None:
        import tvm

        from autotune.artifact.schedules import scheduled
        from autotune.measure.data import make_inputs, numpy_dtype, outputs_of
        from autotune.measure.kernel import build_kernel

        self.sources: list[str] = []
        self._parts = []
        self._rounds: list[list[float]] = []
        for task in tasks:
            work = task.workload
            function, entry = scheduled(task, target, chosen.get(work.key), {})
            space = f" {entry.space}" if entry.space else ""
            self.sources.append(f"{work.name}: {entry.source}{space}")
            kernel = build_kernel(tvm.IRModule({"main": function}), work, target)
            inputs = [tvm.runtime.tensor(array) for array in make_inputs(work, "positive")]
            outputs = [
                tvm.runtime.empty(kind.shape, str(numpy_dtype(kind.dtype)))
                for kind in outputs_of(work)
            ]
            self._parts.append((task.calls, kernel, kernel.pack([*inputs, *outputs])))
        self._pace = min(self._samples(LEAST))

    def _samples(self, count: int) -> list[float]:
        each = [
            [calls * seconds for seconds in kernel.samples(arguments, count)]
            for calls, kernel, arguments in self._parts
        ]
        return [sum(parts) for parts in zip(*each, strict=True)]

    def turn(self, seconds: float) -> None:
        until = time.perf_counter() + WARM
        while time.perf_counter() < until:
            self._samples(LEAST)
        count = min(MOST, max(LEAST, int(seconds / self._pace)))
        self._rounds.append(self._samples(count))

    def rounds(self) -> list[list[float]]:
        return self._rounds


class OnnxRuntime:
    """Its profile tells each node's time. ``folder`` is where the profile is kept meanwhile."""

    def __init__(self, path: Path, inputs: Mapping[str, Any], threads: int, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "onnxruntime")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self._inputs = dict(inputs)
        self._counts: list[tuple[int, int]] = []
        self._runs = 0
        self.outputs = self._run()

    def _run(self) -> list[Any]:
        self._runs += 1
        return list(self._session.run(None, self._inputs))

    def turn(self, seconds: float) -> None:
        begun = time.perf_counter()
        while time.perf_counter() < begun + WARM:
            self._run()
        first = self._runs
        begun = time.perf_counter()
        while self._runs < first + LEAST or (
            time.perf_counter() < begun + seconds and self._runs < first + MOST
        ):
            self._run()
        self._counts.append((first, self._runs))

    def rounds(self) -> list[list[float]]:
        profile = Path(self._session.end_profiling())
        calls = node_seconds(json.loads(profile.read_text()))
        profile.unlink()
        return [calls[first:last] for first, last in self._counts]


def node_seconds(events: Iterable[Mapping[str, Any]]) -> list[float]:
    """Seconds of the nodes of each run in a profile of ONNX Runtime, without reorders.

    Where a run is nothing but reorders, those are what it is.
    """
    calls: list[float] = []
    nodes: list[float] = []
    others: list[float] = []
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            moves = event["args"].get("op_name") in REORDERS
            (others if moves else nodes).append(event["dur"] * 1e-6 + CUT)
        elif event["name"] == "model_run":
            calls.append(sum(nodes or others))
            nodes, others = [], []
    return calls


class OpenVino:
    """It tells the mean time of each node over all calls since the model was compiled.

    So the model is compiled again and again, and called a few times each: a call's time is how much
    the sum grew. As means are rounded down to microseconds, a sample of a fast kernel is the mean
    of some calls.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any], threads: int) -> None:
        self._model = _core().read_model(str(path))
        self._inputs = dict(inputs)
        self._settings = {
            "PERF_COUNT": True,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._rounds: list[list[float]] = []
        (pace,) = self._compiled_once(TIMED)
        self._group = grouped(pace)

    def turn(self, seconds: float) -> None:
        begun, taken, models = time.perf_counter(), list[float](), 0
        while models < 3 or time.perf_counter() < begun + seconds:
            taken += self._compiled_once(self._group)
            models += 1
        self._rounds.append(taken)

    def rounds(self) -> list[list[float]]:
        return self._rounds

    def _compiled_once(self, group: int) -> list[float]:
        """Mean seconds of each ``group`` of calls of a model that is compiled for it."""
        import openvino

        request = _core().compile_model(self._model, "CPU", self._settings).create_infer_request()
        for name, array in self._inputs.items():
            request.set_tensor(name, openvino.Tensor(array))
        for _ in range(SKIPPED):
            request.infer()
        sums = [SKIPPED * _mean(request.profiling_info)]
        for done in range(1, TIMED // group * group + 1):
            request.infer()
            if done % group == 0:
                sums.append((SKIPPED + done) * _mean(request.profiling_info))
        # Rounding may even make a sum shrink, where a kernel takes next to no time.
        return [max(CUT, later - earlier) / group for earlier, later in pairwise(sums)]


def grouped(seconds: float) -> int:
    """How many calls of a kernel that takes ``seconds`` make a sample of OpenVINO's counters.

    A sum of n calls is off by n microseconds at most.
    """
    error = (SKIPPED + TIMED) * 2 * CUT
    return min(TIMED, max(1, math.ceil(error / (FINE * seconds))))


def _mean(nodes: Iterable[Any]) -> float:
    nodes = list(nodes)
    ran = [node for node in nodes if str(node.status).endswith("EXECUTED")]
    if not ran:
        # One that took less than a microsecond counts as not run, but it has an implementation.
        ran = [node for node in nodes if not node.exec_type.startswith(("unknown", "undef"))]
    inner = [node for node in ran if node.node_type not in BORDER]
    if not ran:
        raise ModelError("OpenVINO leaves nothing of it to be run")
    return sum(node.real_time.total_seconds() + CUT for node in inner or ran)


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()
