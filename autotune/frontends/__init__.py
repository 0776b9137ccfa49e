"""From a user's model to a Relax module: ``import_model`` asks the frontends which one takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.frontends.base import Frontend, ImportedModel, TensorSpec
from autotune.frontends.registry import frontend_for
from autotune.frontends.verify import ImportCheck, verify_import

__all__ = [
    "Frontend",
    "ImportCheck",
    "ImportedModel",
    "TensorSpec",
    "digest_of",
    "import_model",
    "verify_import",
]


def import_model(
    source: Any, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> ImportedModel:
    """Import ``source``, its open input dimensions fixed to ``input_shapes``.

    It is the path of a model file, or whatever else an installed frontend takes. Nothing is
    compared yet: call ``verify_import`` before the module is trusted. Raises ``ModelError`` or
    ``InputError``, each with a sentence for the user.
    """
    return frontend_for(source).load(source, input_shapes or {})


def digest_of(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What the import of the .onnx or .pt2 file ``path`` is known by, without importing it.

    Raises a ``UserError`` where the file or the shapes are at fault.
    """
    if path.suffix.lower() == ".pt2":
        from autotune.frontends.torch_export import digest_of_file

        return digest_of_file(path, input_shapes)
    from autotune.frontends.onnx import digest_of_onnx

    return digest_of_onnx(path, input_shapes)
