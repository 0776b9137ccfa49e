"""The contract of a frontend, and what it hands over: a Relax module, inputs, a reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
    original model, by name, on numpy arrays by name. ``notes`` is what the import did, ``stage``
    which of its cures that was, ``half`` whether some of the model is computed in 16-bit floats.
    ``samples`` are values for inputs that random ones would not do
    for, by name. ``packages`` are what made the module, as distributions by the name to tell them
    by.

    ``again`` imports the model by the next cure, for where this one turns out not to compute what
    the reference does; None where none is left. ``blame`` then names the first operator of the
    original whose result is another one here, with the given inputs; empty where none is found.
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
    stage: str = ""
    half: bool = False
    blame: Callable[[Arrays], str] = field(default=lambda inputs: "", repr=False)
    again: Callable[[], ImportedModel | None] = field(default=lambda: None, repr=False)


class Frontend(ABC):
    """Takes models of one kind into the house. Made without arguments; keeps nothing of a model.

    What it imports is not trusted before ``verify_import`` compared it with its reference.
    """

    name: ClassVar[str]
    reads: ClassVar[str]
    """What it takes, as a user calls it: "ONNX files (.onnx)"."""

    @abstractmethod
    def takes(self, source: Any) -> bool:
        """Whether ``source`` is for this frontend: the path of a file, or an object in memory.

        Every frontend is asked about every source, so that is cheap: by the suffix, a few bytes or
        the name of the class, and nothing heavy is imported. A damaged or missing file of its kind
        is for it too, since it knows best what to say. Raises nothing.
        """

    @abstractmethod
    def load(self, source: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
        """Import ``source``, its open input dimensions fixed to ``input_shapes``.

        Equal sources and shapes give an equal digest, on every machine. Raises ``ModelError``
        where the model is at fault and ``InputError`` where the shapes are, each with a sentence
        that says what to do.
        """


def path_of(source: Any) -> Path | None:
    """``source`` as a path; None if it is an object."""
    return Path(source) if isinstance(source, str | Path) else None
