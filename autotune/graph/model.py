"""A model after the graph passes: fused functions, and the tasks among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.frontends.base import TensorSpec
from search_spaces.task import Target, Task


@dataclass(frozen=True)
class FusedModel:
    """What is tuned and compiled.

    ``module`` is a ``tvm.IRModule``: Relax "main" with bound constants, calling fused PrimFuncs.
    ``functions`` maps the name of each PrimFunc to the key of its workload; ``tasks`` are the
    unique workloads, in order of first call. ``choices`` is what was chosen for the graph (JSON).
    ``packages`` are what imported the model, as distributions by the name to tell them by.
    """

    name: str
    digest: str
    target: Target
    module: Any = field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tasks: tuple[Task, ...] = field(repr=False)
    functions: Mapping[str, str] = field(repr=False)
    choices: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
