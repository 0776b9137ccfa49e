"""What lies in the directory of an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def contents(artifact: Path) -> dict[str, bytes]:
    """Every file's bytes, by name."""
    return {file.name: file.read_bytes() for file in sorted(artifact.iterdir())}


def manifest(artifact: Path) -> dict[str, Any]:
    """The manifest, as plain values."""
    found: dict[str, Any] = json.loads((artifact / "manifest.json").read_text())
    return found
