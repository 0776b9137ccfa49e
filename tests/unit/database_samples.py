"""Real objects to record: a target, tasks, candidates and outcomes, without a compiler."""

from __future__ import annotations

import json
from pathlib import Path

from autotune.measure.base import Measurement
from autotune.measure.outcome import Measured, Outcome
from autotune.search.recording import record_of, target_row, workload_row
from search_spaces.task import Access, Axis, Block, Candidate, Target, Task, TensorType, Workload
from tuning_db.database import TuningDatabase
from tuning_db.records import Record, TaskRow

TARGET = Target("llvm", "x86_64-linux-gnu", "znver1", ("+avx2", "+fma"), "EPYC 7601", 2, 2, 32768)
OTHER_TARGET = Target("llvm", "aarch64-linux-gnu", "", (), "Cortex-A72", 4, 4)
VERSIONS = {"tvm": "0.27.0.post1", "autotune": "0.1.0"}


def matmul(size: int) -> Task:
    """A square matmul with a constant right side."""
    tensor = TensorType((size, size), "float32")
    axes = (Axis(size, False), Axis(size, False), Axis(size, True))
    workload = Workload(
        key=f"{size:032x}",
        name=f"matmul{size}",
        function=json.dumps({"attrs": {"name": "main"}, "size": size}),
        arguments=(tensor, tensor, tensor),
        constants=(1,),
        blocks=(
            Block(
                "matmul",
                axes,
                (Access(0, ((0,), (2,)), True), Access(1, ((2,), (1,)), True)),
                (Access(2, ((0,), (1,)), True),),
                (("mul", 1), ("add", 1)),
            ),
        ),
    )
    return Task(workload, calls=3, flops=2.0 * size**3, bytes=3 * tensor.bytes)


TASK = matmul(128)
OTHER_TASK = matmul(256)


def candidate(tile: int) -> Candidate:
    """One of a space with a single parameter."""
    return Candidate("gemm", 1, {"tile": tile, "unroll": True})


def trace_of(chosen: Candidate) -> str:
    """Text like TVM's traces: long, and much the same for all candidates."""
    return json.dumps([[["GetSBlock", [], ["matmul", "main"]]] * 40, dict(chosen.parameters)])


def measured(seconds: float) -> Measured:
    """A right result with a few samples around ``seconds``."""
    return Measured(seconds, tuple(seconds * (1 + 0.01 * k) for k in range(10)), 2e-7, 1e-5)


def record(
    tile: int,
    outcome: Outcome,
    run: str,
    *,
    task: Task = TASK,
    target: Target = TARGET,
    final: bool = False,
) -> Record:
    """What the search would record."""
    chosen = candidate(tile)
    stages = {"schedule": 0.01, "build": 0.05, "run": 0.1}
    measurement = Measurement(chosen, outcome, trace_of(chosen), stages)
    return record_of(task, target, measurement, run=run, final=final)


def open_with_run(path: Path, target: Target = TARGET) -> tuple[TuningDatabase, str]:
    """A database at ``path`` that knows the tasks and a model of them, and a run begun in it."""
    database = TuningDatabase.open(path)
    database.register_target(target_row(target))
    for task in (TASK, OTHER_TASK):
        database.register(workload_row(task))
    tasks = [
        TaskRow(task.workload.key, task.calls, task.flops, task.bytes)
        for task in (TASK, OTHER_TASK)
    ]
    database.register_model("m" * 32, "two-layers", target.digest, tasks)
    return database, database.begin_run(target.digest, "m" * 32, {"trials": 8}, VERSIONS)


def file_bytes(path: Path) -> dict[str, bytes]:
    """The content of every file beside ``path`` whose name begins with its name."""
    return {p.name: p.read_bytes() for p in path.parent.glob(path.name + "*")}
