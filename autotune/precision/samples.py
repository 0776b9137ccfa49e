"""Inputs that accuracy is judged by: the user's, or random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.errors import InputError
from autotune.frontends.base import ImportedModel, TensorSpec
from autotune.frontends.sampling import sample_inputs

if TYPE_CHECKING:
    import numpy as np

    Sample = dict[str, np.ndarray]

RANDOM = 4
"""Random samples of either kind, where the user gives none."""

HELD_BACK = 4
"""Of so many samples one is held back."""


@dataclass(frozen=True)
class Samples:
    """``seen`` is what precision is chosen by, ``held`` what the result is judged by.

    With too few of them to hold any back both are the same. ``given`` by the user, or random.
    """

    seen: list[Sample]
    held: list[Sample]
    given: bool

    @property
    def apart(self) -> bool:
        """Whether the result is judged by what it was not chosen by."""
        return self.held is not self.seen


def samples_of(imported: ImportedModel, path: str | Path | None, seed: int = 0) -> Samples:
    """Those in the .npz file ``path``, or random ones. Raises ``InputError``."""
    if path is None:
        drawn = [sample_inputs(imported, seed + i) for i in range(2 * RANDOM)]
        return Samples(drawn[:RANDOM], drawn[RANDOM:], given=False)
    every = read_samples(path, imported.inputs)
    held = every[HELD_BACK - 1 :: HELD_BACK]
    if not held:
        return Samples(every, every, given=True)
    seen = [one for i, one in enumerate(every) if i % HELD_BACK != HELD_BACK - 1]
    return Samples(seen, held, given=True)


def read_samples(path: str | Path, inputs: Sequence[TensorSpec]) -> list[Sample]:
    """The samples in the .npz file ``path``: an array for each of ``inputs``, by its name.

    Each array is of the shape of its input, with a further axis of samples before it or its first
    axis as many times as long. Raises ``InputError`` for anything else.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile's and numpy's, which share no root
        raise InputError(
            f"{path} is no .npz file of plain arrays: write it with numpy.savez"
        ) from error
    names = [spec.name for spec in inputs]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"{path} has no array {missing[0]}: the model's inputs are {', '.join(names)}"
        )
    parts = {spec.name: _parts(path, spec, arrays[spec.name]) for spec in inputs}
    counts = {name: len(part) for name, part in parts.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"{path} has {told}: give as many samples of each input")
    return [dict(zip(parts, one, strict=True)) for one in zip(*parts.values(), strict=True)]


def _parts(path: str | Path, spec: TensorSpec, array: np.ndarray) -> list[np.ndarray]:
    import numpy as np

    shape = tuple(spec.shape)
    if array.dtype.name != spec.dtype:
        raise InputError(
            f"{spec.name} in {path} has dtype {array.dtype.name} but the model takes {spec.dtype}: "
            f"convert it with astype({spec.dtype!r})"
        )
    if array.shape[1:] == shape and array.ndim == len(shape) + 1:
        found = list(array)
    elif shape and array.shape[1:] == shape[1:] and shape[0] and array.shape[0] % shape[0] == 0:
        found = np.split(array, array.shape[0] // shape[0]) if array.shape[0] else []
    else:
        wanted = "x".join(map(str, ("N", *shape)))
        raise InputError(
            f"{spec.name} in {path} has shape {'x'.join(map(str, array.shape))}: N samples of it "
            f"are {wanted}"
        )
    if not found:
        raise InputError(f"{path} has no samples of {spec.name}: give some")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{spec.name} in {path} has NaN or infinities: leave such samples out")
    return [np.ascontiguousarray(one) for one in found]
