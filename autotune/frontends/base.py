"""What every frontend hands over: a Relax module, its named inputs, and a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output: its shape and its dtype as numpy spells it ("float32").

    ``upper`` is for an integer input that indexes a table: valid values are below it (0: unknown).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    upper: int = 0


@dataclass(frozen=True)
class ImportedModel:
    """A model inside the house.

    ``module`` is a ``tvm.IRModule`` whose Relax function "main" takes ``inputs`` in order and
    returns ``outputs`` in order (a tuple where there are several); weights are bound constants.
    ``digest`` identifies model file and input shapes. ``reference`` computes the outputs of the
    original model, by name, on numpy arrays by name. ``notes`` is what the import did. ``samples``
    are values for inputs that random ones would not do for, by name. ``packages`` are what made the
    module, as distributions by the name to tell them by.
    """

    name: str
    digest: str
    module: Any = field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Callable[[Arrays], dict[str, np.ndarray]] = field(repr=False)
    notes: tuple[str, ...] = ()
    samples: Arrays = field(default_factory=dict, repr=False)
    packages: Mapping[str, str] = field(default_factory=dict)
