"""Recurrences beside ONNX Runtime, alone and in models: ``python -m benchmarks.recurrent``.

A single LSTM or GRU is compiled without any search, with its steps in a loop and, where it is short
enough, unrolled. Models of OCR and of speech are tuned end to end. Each is then called in turns
with ONNX Runtime, on the same inputs and threads, and the outputs are compared. Beside the median
there is the least: on a machine that others use as well only that says something.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Others, describe, settings_of
from benchmarks.options import several
from benchmarks.recurrent_models import MODELS, one

GATES = ("LSTM", "GRU", "RNN")

UNROLLED = 200
"""Steps up to which the unrolled form is compiled as well: it takes minutes above."""

Run = Callable[[], Sequence[Any]]


def alone(operator: str, steps: int, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """One recurrence by itself: unrolled, in a loop, and by ONNX Runtime."""
    name = f"{operator.lower()}-{steps}x{size}"
    path = options.work / f"{name}.onnx"
    one(operator, steps, size)(path)
    builds = {"loop": _compiled(path, options.work / name, options)}
    if steps <= UNROLLED and options.unrolled:
        with _unrolled():
            builds["unrolled"] = _compiled(path, options.work / f"{name}-unrolled", options)
    return _measured(path, builds, options) | {"kind": operator, "steps": steps, "size": size}


def model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A whole model: default, tuned, and by ONNX Runtime."""
    import autotune

    path = options.work / f"{name}.onnx"
    MODELS[name](path)
    builds = {"default": _compiled(path, options.work / f"{name}-default", options)}
    if options.trials:
        begun = time.perf_counter()
        result = autotune.tune(
            path,
            trials=options.trials,
            database=options.db,
            output=options.work / f"{name}-tuned",
            threads=options.threads,
            status=_told,
        )
        builds["tuned"] = {
            "artifact": str(options.work / f"{name}-tuned"),
            "seconds": time.perf_counter() - begun,
            "message": result.search.message,
        }
    return _measured(path, builds, options) | {"kind": name}


def _compiled(path: Path, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    import autotune

    begun = time.perf_counter()
    result = autotune.compile(path, output=output, threads=options.threads)
    assert result.check is not None  # what is timed here runs here
    return {
        "artifact": str(output),
        "seconds": time.perf_counter() - begun,
        "error": result.check.error,
        "tasks": result.summary,
    }


@contextlib.contextmanager
def _unrolled() -> Iterator[None]:
    from autotune.frontends.onnx_rewrites import recurrent_loop

    kept = recurrent_loop.SHORTEST
    recurrent_loop.SHORTEST = UNROLLED + 1
    try:
        yield
    finally:
        recurrent_loop.SHORTEST = kept


def _measured(
    path: Path, builds: Mapping[str, dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """Call every build and ONNX Runtime in turns; seconds, and differences from ONNX Runtime."""
    import numpy as np

    _told(f"{path.stem}: timing")
    engines, shape = _engines(path, builds, options.threads)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    first = {name: run(x) for name, run in engines.items()}
    expected = first["onnxruntime"]
    samples: dict[str, list[float]] = {name: [] for name in engines}
    end = time.perf_counter() + options.bench
    with Others() as others:
        while time.perf_counter() < end or len(samples["onnxruntime"]) < options.least:
            for name, run in engines.items():
                run(x)  # what the one before left in the caches is not this one's to pay
                begun = time.perf_counter()
                run(x)
                samples[name].append(time.perf_counter() - begun)
    found = {
        name: {
            "p50": float(np.median(values)),
            "least": min(values),
            "samples": len(values),
            "difference": max(
                float(np.abs(a - b).max()) for a, b in zip(first[name], expected, strict=True)
            ),
        }
        for name, values in samples.items()
    }
    return {
        "builds": dict(builds),
        "engines": found,
        "largest": max(float(np.abs(value).max()) for value in expected),
        "busy_cores_of_others": others.cores,
    }


def _engines(
    path: Path, builds: Mapping[str, dict[str, Any]], threads: int
) -> tuple[dict[str, Callable[[Any], list[Any]]], tuple[int, ...]]:
    import onnxruntime

    import autotune

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    engines: dict[str, Callable[[Any], list[Any]]] = {}
    for name, build in builds.items():
        loaded = autotune.load(build["artifact"])
        engines[name] = lambda x, loaded=loaded: list(loaded({"x": x}).values())  # type: ignore[misc]
    engines["onnxruntime"] = lambda x: list(session.run(None, {"x": x}))
    return engines, tuple(session.get_inputs()[0].shape)


def _told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _line(name: str, found: Mapping[str, Any]) -> str:
    peer = found["engines"]["onnxruntime"]
    parts = [f"{name:18}"]
    for engine, values in found["engines"].items():
        ratio = peer["p50"] / values["p50"], peer["least"] / values["least"]
        parts.append(
            f"{engine} {values['p50'] * 1e3:.3f} ms (least {values['least'] * 1e3:.3f}, "
            f"{ratio[0]:.2f} and {ratio[1]:.2f} times as fast, off by {values['difference']:.1e})"
        )
    return "; ".join(parts)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recurrent", description=__doc__)
    add = parser.add_argument
    add("--threads", type=int, default=1, help="of every engine (%(default)s)")
    add("--kinds", default="LSTM", help="of single recurrences, by commas (%(default)s)")
    add("--steps", type=_numbers, default=[100, 1000], help="of each, by commas (100,1000)")
    add("--sizes", type=_numbers, default=[128, 256, 512], help="of its state (128,256,512)")
    add("--models", default=",".join(MODELS), help="by commas (%(default)s)")
    add("--trials", type=int, default=150, help="of each model; 0: untuned (%(default)s)")
    add("--bench", type=float, default=3.0, help="seconds of each comparison (%(default)s)")
    add("--least", type=int, default=10, help="calls of each engine at least (%(default)s)")
    add("--no-unrolled", dest="unrolled", action="store_false", help="only loops")
    add("--work", type=Path, default=Path("build/recurrent"), help="what is made (%(default)s)")
    add("--db", type=Path, help="the tuning database (default: tuning.db in --work)")
    add("--json", type=Path, default=Path("build/recurrent.json"), help="(%(default)s)")
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    options.db = options.db or options.work / "tuning.db"
    results: dict[str, Any] = {}
    head = {**describe(options.threads), "settings": settings_of(options, "json", "work", "db")}
    names = several(options.models, MODELS, "model") if options.models else []
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (
            f"{kind} {steps}x{size}",
            lambda k=kind, t=steps, h=size: alone(k, t, h, options),  # type: ignore[misc]
        )
        for kind in several(options.kinds, GATES, "kind of recurrence")
        for steps in options.steps
        for size in options.sizes
    ]
    jobs += [(name, lambda n=name: model(n, options)) for name in names]  # type: ignore[misc]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name, job in jobs:
        results[name] = job()
        print(_line(name, results[name]), flush=True)
        # Written after each, so that an interrupted run is not lost.
        options.json.write_text(json.dumps({**head, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
