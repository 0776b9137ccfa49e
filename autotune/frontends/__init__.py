"""From a user's model to a Relax module: ``import_model`` chooses the frontend by kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import ModelError
from autotune.frontends.base import ImportedModel, TensorSpec
from autotune.frontends.verify import ImportCheck, verify_import

__all__ = ["ImportCheck", "ImportedModel", "TensorSpec", "import_model", "verify_import"]


def import_model(
    source: Any, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> ImportedModel:
    """Import ``source``, a file or an exported program, open dimensions fixed to ``input_shapes``.

    Nothing is compared yet: call ``verify_import`` before the module is trusted. Raises
    ``ModelError`` or ``InputError``, each with a sentence for the user.
    """
    if not isinstance(source, str | Path) or Path(source).suffix.lower() == ".pt2":
        from autotune.frontends.torch_export import import_torch

        return import_torch(source, input_shapes or {})
    path = Path(source)
    if path.suffix.lower() in {".pt", ".pth", ".safetensors", ".tflite", ".pb"}:
        raise ModelError(f"{path} is not an ONNX model: export it to ONNX first")
    from autotune.frontends.onnx import import_onnx

    return import_onnx(path, input_shapes or {})
