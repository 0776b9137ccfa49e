"""An artifact that holds a program for each of several sizes of its inputs, and picks at run time.

Each size is an artifact by itself, in a directory of its own; the weights lie beside them, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.errors import ArtifactError, InputError
from autotune.runtime import (
    MANIFEST,
    WEIGHTS,
    Model,
    any_manifest,
    file_digest,
    shared_weights,
)
from autotune.runtime import load as load_one

Sizes = tuple[tuple[int, ...], ...]


class SizedModel:
    """A loaded artifact of several sizes: call it with arrays by name, of any of them.

    ``sizes`` holds each by the name of its directory, with its ``inputs`` and ``outputs``. Safe to
    call from several threads; the calls of one size are made one after another.
    """

    def __init__(self, sizes: Mapping[str, Model], manifest: Mapping[str, Any]) -> None:
        """Use ``autotune.load``, which checks what it reads."""
        self.sizes = dict(sizes)
        self.manifest = manifest
        first = next(iter(self.sizes.values()))
        self._names = [spec.name for spec in first.inputs]
        self._by_shape = {
            tuple(spec.shape for spec in one.inputs): one for one in self.sizes.values()
        }

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """As ``Model``. Raises ``InputError`` also for a size that it does not hold."""
        return self.pick(inputs)(inputs)

    def pick(self, inputs: Mapping[str, Any]) -> Model:
        """The model of the size that ``inputs`` have. Raises ``InputError``."""
        if missing := [name for name in self._names if name not in inputs]:
            raise InputError(f"input {missing[0]} is missing: give an array for each input")
        shapes = tuple(tuple(np.shape(inputs[name])) for name in self._names)
        found = self._by_shape.get(shapes)
        if found is None:
            raise InputError(
                f"the model was not compiled for {_told(self._names, shapes)}: it takes "
                + " or ".join(_told(self._names, one) for one in self._by_shape)
            )
        return found


def load(path: str | Path, threads: int | None = None) -> Model | SizedModel:
    """Load the artifact directory ``path``, of one size or of several.

    Every file is compared with its digest first, and the processor with what the code needs.
    ``threads`` is how many threads one inference uses, instead of what the artifact was made for.
    Raises ``ArtifactError``.
    """
    manifest = any_manifest(path)
    if "sizes" not in manifest:
        return load_one(path, threads)
    directory = Path(path)
    try:
        weights = shared_weights(directory / WEIGHTS, manifest["files"][WEIGHTS]["sha256"])
        loaded = {}
        for name, entry in manifest["sizes"].items():
            place = directory / name
            if place.parent != directory or file_digest(place / MANIFEST) != entry["sha256"]:
                raise ArtifactError(
                    f"{place / MANIFEST} is not the file that was compiled: "
                    "compile the artifact again"
                )
            loaded[name] = load_one(place, threads, weights)
    except OSError as error:
        raise ArtifactError(
            f"{error.filename} cannot be read ({error.strerror}): compile the artifact again"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{directory / MANIFEST} is damaged: compile the artifact again"
        ) from error
    return SizedModel(loaded, manifest)


def _told(names: Sequence[str], shapes: Sizes) -> str:
    pairs = zip(names, shapes, strict=True)
    return ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in pairs)
