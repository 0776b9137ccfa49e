"""An artifact that holds a program for each of several sizes of its inputs.

A directory for each size, which is an artifact by itself but for its weights: they lie beside it,
once for all sizes, and the manifest above names them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from autotune.artifact.build import Compiled, write
from autotune.artifact.manifest import Manifest
from autotune.artifact.weights import SharedWeights
from autotune.errors import InputError
from autotune.graph.model import FusedModel
from autotune.runtime import FORMAT, MANIFEST, WEIGHTS, file_digest

LONGEST = 100
"""Characters of the name of a directory."""


def names_of(models: Sequence[FusedModel]) -> list[str]:
    """A name for each size of one model: the shapes of the inputs that differ, as 8x3x224x224.

    Raises ``InputError`` where two sizes are the same.
    """
    shapes = [[spec.shape for spec in model.inputs] for model in models]
    varying = [i for i, column in enumerate(zip(*shapes, strict=True)) if len(set(column)) > 1]
    names = [
        "_".join("x".join(map(str, one[i])) or "scalar" for i in varying)[:LONGEST]
        for one in shapes
    ]
    for number, one in enumerate(shapes):
        if one in shapes[:number]:
            told = ", ".join("x".join(map(str, shape)) for shape in one)
            raise InputError(f"the size {told} is named twice: name each size once")
    if len(set(names)) < len(names):  # where they are longer than a name may be
        names = [f"size{number}" for number in range(len(names))]
    return names


def write_sizes(
    parts: Mapping[str, Compiled], folder: Path, notes: Mapping[str, Sequence[str]]
) -> dict[str, Manifest]:
    """Write what was compiled, by name of its size; their manifests."""
    shared = SharedWeights()
    places = {name: shared.add(made.weights) for name, made in parts.items()}
    file = shared.write(folder / WEIGHTS)
    manifests = {}
    sizes = {}
    for name, made in parts.items():
        (folder / name).mkdir()
        own = notes.get(name, ())
        manifests[name] = write(made, folder / name, own, places[name], shared=file.sha256)
        inputs = {spec.name: spec.shape for spec in made.fused.inputs}
        sizes[name] = {"inputs": inputs, "sha256": file_digest(folder / name / MANIFEST)}
    told = {
        "format": FORMAT,
        "model": {"name": next(iter(parts.values())).fused.name},
        "sizes": sizes,
        "files": {WEIGHTS: asdict(file)},
    }
    text = json.dumps(told, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifests
