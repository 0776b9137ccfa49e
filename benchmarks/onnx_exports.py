"""Models as exporters write them, compiled and compared: ``python -m benchmarks.onnx_exports``.

Each program of ``benchmarks/exporters`` writes small models with its exporter's packages, which
seldom fit into one environment: ``--python sklearn=/venvs/sklearn/bin/python`` says whose Python
runs which, and without it this one does. What lacks its packages is named and left out. Then every
model goes through import, comparison, fusion and a default build, as in ``onnx_coverage``, each in
a process of its own, and is compared with ONNX Runtime on random inputs. A model is

- right: the outputs are those of ONNX Runtime,
- refused: a sentence says why the model cannot be compiled,
- wrong: something was compiled that computes something else,
- failed: an error that is no sentence for a user, and so a bug of ours,
- crashed or late: the process died, or took longer than the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.onnx_cases import named, teller
from benchmarks.onnx_coverage import (
    BUGS,
    OUTCOMES,
    REFUSED,
    RIGHT,
    WRONG,
    Result,
    compared,
    examine_all,
    load_all,
    ready_model,
)
from benchmarks.options import several

PROGRAMS = Path(__file__).parent / "exporters"
EXPORTERS = {
    "sklearn": "sklearn_models.py",
    "keras": "keras_models.py",
    "paddle": "paddle_models.py",
    "torch": "torch_models.py",
    "versions": "versions.py",
}
"""Exporters by name, with the program that uses each."""

EXPORT_LIMIT = 1800.0
"""Seconds for all models of an exporter."""


@dataclass(frozen=True)
class Exported:
    """A model file, and the shapes that it is compiled for. ``operator`` is its exporter."""

    name: str
    operator: str
    path: Path
    shapes: dict[str, tuple[int, ...]]


def examine(case: Exported, _folder: Path) -> tuple[str, str, str]:
    """Outcome, import stage and reason of ``case``, in this process."""
    from autotune.frontends.sampling import sample_inputs
    from autotune.frontends.verify import check_outputs
    from autotune.inspection import inspect

    stage = ""
    try:
        inspect(case.path, case.shapes)
        ready = ready_model(case.path, case.shapes or None)
        imported, stage = ready.imported, ready.imported.stage
        run = compared(ready)
    except UserError as error:
        return REFUSED, stage, str(error).replace(str(case.path), "the model")
    for seed in (2, 3):
        inputs = sample_inputs(imported, seed)
        try:
            check_outputs(imported, inputs, imported.reference(inputs), run(inputs))
        except UserError as error:
            return WRONG, stage, str(error)
    return RIGHT, stage, ""


def export(name: str, python: str, folder: Path, only: str) -> dict[str, Any]:
    """Run an exporter's program; its manifest. Raises ``InputError`` where it does not run."""
    manifest = folder / "manifest.json"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    manifest.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [python, str(PROGRAMS / EXPORTERS[name]), str(folder.resolve()), only],
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            timeout=EXPORT_LIMIT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"the exporter {name} does not run by {python} ({error})") from None
    if not manifest.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"the exporter {name} failed ({last[:200]})")
    return dict(json.loads(manifest.read_text()))


def exported(name: str, folder: Path, manifest: Mapping[str, Any]) -> list[Exported]:
    """The models that an exporter wrote."""
    return [
        Exported(
            f"{name}/{entry['name']}",
            name,
            folder / entry["file"],
            {key: tuple(shape) for key, shape in entry["shapes"].items()},
        )
        for entry in manifest["models"]
        if not entry["reason"]
    ]


def summary(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Counts of outcomes by exporter."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        table[result.operator][result.outcome] += 1
    return {name: dict(counts) for name, counts in table.items()}


def table(found: Mapping[str, Mapping[str, int]], unwritten: Mapping[str, int]) -> list[str]:
    """A line for each exporter."""
    heads = ("exporter", "models", *OUTCOMES, "not exported")
    rows = [
        (name, sum(counts.values()), *(counts.get(o, 0) for o in OUTCOMES), unwritten.get(name, 0))
        for name, counts in found.items()
    ]
    widths = [max(len(str(row[i])) for row in (heads, *rows)) for i in range(len(heads))]
    return [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where nothing is wrong and nothing crashed, 1 elsewhere, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="onnx_exports", description=__doc__)
    parser.add_argument("--exporters", default=",".join(EXPORTERS), help="by commas")
    parser.add_argument("--python", action="append", default=[], metavar="EXPORTER=PATH")
    parser.add_argument("--only", default="", help="models whose name holds one of these")
    parser.add_argument("--folder", type=Path, help="keep the models here")
    parser.add_argument("--reuse", action="store_true", help="take the models that are in --folder")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each model")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args(arguments)
    try:
        if options.jobs < 1:
            raise InputError("--jobs must be 1 or more")
        if options.reuse and options.folder is None:
            raise InputError("--reuse needs the --folder that the models are in")
        with tempfile.TemporaryDirectory() as temporary:
            return _run(options, options.folder or Path(temporary))
    except UserError as error:
        print(f"onnx_exports: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, folder: Path) -> int:
    from benchmarks.latency import write_json
    from benchmarks.machine import describe, settings_of

    os.environ.update(TVM_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    names = several(options.exporters, EXPORTERS, "exporter")
    pythons = dict.fromkeys(EXPORTERS, sys.executable)
    for word in options.python:
        name, _, path = word.partition("=")
        several(name, EXPORTERS, "exporter")
        pythons[name] = path
    cases: list[Exported] = []
    manifests: dict[str, Any] = {}
    for name in names:
        own = folder / name
        if options.reuse and (own / "manifest.json").is_file():
            manifests[name] = json.loads((own / "manifest.json").read_text())
        else:
            manifests[name] = export(name, pythons[name], own, options.only)
        for package in manifests[name]["missing"]:
            print(f"{name} is left out: {package} is not installed for {pythons[name]}")
        cases += exported(name, own, manifests[name])
    cases = named(cases, options.only)
    load_all()
    tell = teller(len(cases), RIGHT)
    results = examine_all(cases, options.jobs, options.limit, tell, examine)
    found = summary(results)
    unwritten = {
        name: sum(bool(entry["reason"]) for entry in manifest["models"])
        for name, manifest in manifests.items()
    }
    print("\n".join(table(found, unwritten)))
    if options.json is not None:
        report = {**describe(), "settings": settings_of(options, "json", "folder", "python")}
        report |= {"exporters": manifests, "outcomes": found}
        write_json(options.json, {**report, "results": [asdict(result) for result in results]})
    return 1 if any(result.outcome in BUGS for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
