"""What the exporters' programs share. Nothing of autotune is here: they run in other environments.

``python benchmarks/exporters/NAME.py FOLDER`` writes one file a model into FOLDER, and
``manifest.json``: the packages used, and for each model its file, the shapes that it is compiled
for, and what the exporter said where it wrote none.
"""

from __future__ import annotations

import contextlib
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


def run(
    packages: Sequence[str],
    makers: Callable[[], Mapping[str, Maker]],
    apart: bool = False,
    some: Sequence[str] = (),
) -> None:
    """Write what ``makers`` make into the folder that the command line names.

    A missing package is in the manifest, instead of models; but not one that only ``some`` models
    need. ``makers`` is called after that. An exporter that may take its process with it gets one
    ``apart`` for each model.
    """
    folder = Path(sys.argv[1])
    only = [word for word in sys.argv[2:3] for word in word.split(",") if word]
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"packages": {}, "missing": [], "models": []}
    try:
        found = {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        report["missing"] = [error.name]
        (folder / "manifest.json").write_text(json.dumps(report))
        return
    for name in some:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    report["packages"] = found
    models = []
    os.chdir(folder)  # exporters write weights beside the model by the working directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, maker in makers().items():
            if only and not any(word in name for word in only):
                continue
            path = folder / f"{name}.onnx"
            entry: dict[str, object] = {"name": name, "file": path.name, "shapes": {}}
            entry.update(_apart(maker, path) if apart else _made(maker, path))
            models.append(entry)
            print(name, entry["reason"], file=sys.stderr, flush=True)
    report["models"] = models
    (folder / "manifest.json").write_text(json.dumps(report, indent=1))


def _made(maker: Maker, path: Path) -> dict[str, object]:
    """Shapes of the model that ``maker`` writes; the reason where it writes none."""
    try:
        return {"shapes": {n: list(map(int, s)) for n, s in maker(path).items()}, "reason": ""}
    except Exception as error:  # an exporter fails in any way, and the others go on
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"reason": f"{type(error).__name__}: {lines[0][:200] if lines else ''}"}


def _apart(maker: Maker, path: Path) -> dict[str, object]:
    """As ``_made``, in a copy of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, json.dumps(_made(maker, path)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return dict(json.loads(said)) if said else {"reason": f"the process ended with {status}"}
