"""Search spaces with a known best point, to test searches without a compiler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.task import Access, Axis, Block, Candidate, Target, Task, TensorType, Workload

# Of a kind of its own, so that no installed space matches but those of the tests.
TARGET = Target("formula", "x86_64-linux-gnu", "znver1", ("+avx2",), "a test machine", 2, 2)


def make_task(key: str = "k0", *, calls: int = 1, extent: int = 64, kind: str = "gemm") -> Task:
    shape = TensorType((extent, extent), "float32")
    block = Block(
        "main",
        (Axis(extent, False), Axis(extent, False), Axis(extent, True)),
        (Access(0, ((0,), (2,)), True), Access(1, ((2,), (1,)), True)),
        (Access(2, ((0,), (1,)), True),),
        (("mul", 1), ("add", 1)),
    )
    work = Workload(key, f"{kind}_{key}", "{}", (shape, shape, shape), blocks=(block,))
    return Task(work, calls, 2.0 * extent**3, 3 * shape.bytes)


class TileSpace(SearchSpace):
    """Six decisions; tiles that do not fit together are refused."""

    name = "tile"
    priority = 10
    refuse = True

    def matches(self, task: Task, target: Target) -> bool:
        return task.workload.name.startswith("gemm")

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        return {
            "rows": IntDistribution(1, 16),
            "columns": CategoricalDistribution((8, 16, 24, 32, 48, 64)),
            "depth": CategoricalDistribution((1, 2, 4, 8, 16)),
            "unroll": CategoricalDistribution((0, 1, 2, 4, 8)),
            "order": CategoricalDistribution(("ij", "ji", "tiled")),
            "packed": CategoricalDistribution((False, True)),
        }

    def default(self, task: Task, target: Target) -> dict[str, Any]:
        return {
            "rows": 2, "columns": 16, "depth": 1, "unroll": 0, "order": "ij", "packed": False,
        }  # fmt: skip

    def apply(
        self, schedule: Any, task: Task, target: Target, parameters: Mapping[str, Any]
    ) -> None:
        raise InvalidParameters("this space is for tests without a compiler")

    def features(
        self, task: Task, target: Target, parameters: Mapping[str, Any]
    ) -> dict[str, float]:
        if self.refuse and parameters["rows"] * parameters["columns"] > 512:
            raise InvalidParameters("the register tile is too large")
        found = super().features(task, target, parameters)
        found["accumulators"] = parameters["rows"] * parameters["columns"] / 8
        return found


class PlainSpace(SearchSpace):
    """Eight points, none of them good."""

    name = "plain"

    def matches(self, task: Task, target: Target) -> bool:
        return True

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        return {
            "width": CategoricalDistribution((4, 8, 16, 32)),
            "parallel": CategoricalDistribution((False, True)),
        }

    def default(self, task: Task, target: Target) -> dict[str, Any]:
        return {"width": 8, "parallel": True}

    def apply(
        self, schedule: Any, task: Task, target: Target, parameters: Mapping[str, Any]
    ) -> None:
        raise InvalidParameters("this space is for tests without a compiler")


def latency(task: Task, candidate: Candidate) -> float:
    """Seconds of a candidate: smooth, with an interaction, a cliff and one best point (1e-3)."""
    p: Mapping[str, Any] = candidate.parameters
    if candidate.space == "plain":
        return 8e-3 * (1 + 0.1 * abs(math.log2(p["width"] / 8)) + (0.5 if not p["parallel"] else 0))
    accumulators = float(p["rows"] * p["columns"] / 8)
    loss = 0.30 * abs(math.log2(accumulators / 12))
    loss += 0.15 * abs(math.log2(p["columns"] / 16))
    loss += 0.12 * abs(math.log2(p["depth"] / 4)) + 0.06 * abs(p["unroll"] - 2)
    loss += {"tiled": 0.0, "ij": 0.35, "ji": 0.6}[str(p["order"])]
    loss += 0.0 if p["packed"] else 0.4
    if accumulators > 16:  # spills
        loss += 0.7
    return float(1e-3 * (1 + loss))
