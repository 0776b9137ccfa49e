"""What the exporters' programs share. Nothing of autotune is here: they run in other environments.

``python benchmarks/exporters/NAME.py FOLDER`` writes one file a model into FOLDER, and
``manifest.json``: the packages used, and for each model its file, the shapes that it is compiled
for, and what the exporter said where it wrote none.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Shapes = Mapping[str, Sequence[int]]
Maker = Callable[[Path], Shapes]
"""Writes a model to the path it gets; returns shapes for inputs with open dimensions."""


def run(packages: Sequence[str], makers: Callable[[], Mapping[str, Maker]]) -> None:
    """Write what ``makers`` make into the folder that the command line names.

    A missing package is in the manifest, instead of models. ``makers`` is called after that.
    """
    folder = Path(sys.argv[1])
    only = [word for word in sys.argv[2:3] for word in word.split(",") if word]
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"packages": {}, "missing": [], "models": []}
    try:
        report["packages"] = {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        report["missing"] = [error.name]
        (folder / "manifest.json").write_text(json.dumps(report))
        return
    models = []
    os.chdir(folder)  # exporters write weights beside the model by the working directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, maker in makers().items():
            if only and not any(word in name for word in only):
                continue
            path = folder / f"{name}.onnx"
            entry = {"name": name, "file": path.name, "shapes": {}, "reason": ""}
            try:
                entry["shapes"] = {n: list(s) for n, s in maker(path).items()}
            except Exception as error:  # an exporter fails in any way, and the others go on
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                entry["reason"] = f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
            models.append(entry)
            print(name, entry["reason"], file=sys.stderr, flush=True)
    report["models"] = models
    (folder / "manifest.json").write_text(json.dumps(report, indent=1))
