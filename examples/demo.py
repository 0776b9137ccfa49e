"""Tune a small real model on this CPU and compare it with ONNX Runtime: ``make demo``.

The model tells whether a line of text is upside down (PP-OCRv4's direction classifier, with the
weights that the package rapidocr-onnxruntime carries). Takes a few minutes, two of which are the
search; a second run continues the first one's tuning database.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import autotune
from autotune.errors import MissingDependency, UserError

if TYPE_CHECKING:
    from autotune.bench import BenchResult

HEIGHT, WIDTH = 48, 192
INPUT = "x"
TEXT = "autotune 2026"
TOLERANCE = 1e-4
"""Largest difference allowed between outputs, as a share of their size (float32)."""


def model_file() -> Path:
    """The classifier inside the installed package."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "the demo's model is missing: run pip install --no-deps rapidocr-onnxruntime"
        )
    return Path(spec.origin).parent / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"


def line_of_text(text: str, upside_down: bool = False) -> Any:
    """``text`` in black on white as the model takes it: 1x3x48x192, float32, from -1 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    font = ImageFont.load_default(size=26)
    ImageDraw.Draw(image).text((8, 8), text, fill="black", font=font)
    if upside_down:
        image = image.rotate(180)
    pixels = np.asarray(image, np.float32) / 127.5 - 1.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def reads(run: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Show the artifact a line of text both ways round; whether it tells them apart."""
    right = True
    for upside_down in (False, True):
        (scores,) = run({INPUT: line_of_text(TEXT, upside_down)}).values()
        upright, turned = scores[0]
        right &= (turned > upright) == upside_down
        way = "upside down" if upside_down else "as it should be"
        print(f"  {TEXT!r} drawn {way}: {upright:.1%} upright, {turned:.1%} upside down")
    return right


def show(compared: BenchResult, default: Path) -> None:
    """The table: default build, tuned build, ONNX Runtime; and what it says in words."""
    from autotune.cli.console import table
    from autotune.durations import milliseconds

    labels = {
        str(default): "default build",
        "autotune": "tuned build",
        "onnxruntime": "ONNX Runtime",
    }
    engines = {labels[engine.name]: engine for engine in compared.engines}
    rows = []
    for label in labels.values():
        engine = engines[label]
        taken, ratio, apart = engine.latency, engine.ratio, engine.difference
        rows.append(
            (
                f"{label} {engine.version}" if label == "ONNX Runtime" else label,
                *(milliseconds(seconds) for seconds in (taken.p50, taken.p95, taken.p99)),
                f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "1",
                f"{apart.relative:.1g}" if apart else "",
            )
        )
    table(
        f"one inference, {compared.threads} threads, {compared.cpu}",
        ("", "p50 ms", "p95 ms", "p99 ms", "time / tuned (95 %)", "difference"),
        rows,
    )
    for label in ("default build", "ONNX Runtime"):
        ratio = engines[label].ratio
        assert ratio is not None
        if ratio.clear:
            word = "fast" if ratio.value > 1 else "slow"
            factor = max(ratio.value, 1 / ratio.value)
            print(f"{label}: the tuned build is {factor:.2f} times as {word}")
        else:
            print(f"{label}: no difference to the tuned build beyond this machine's noise")


def main() -> int:
    from autotune.bench import bench
    from autotune.cli.progress import reporter

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=120.0, help="time for the search")
    options.add_argument("--work", type=Path, default=Path("build/demo"), help="where to write")
    given = options.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    model, shapes = model_file(), {INPUT: (1, 3, HEIGHT, WIDTH)}
    default, tuned = given.work / "default", given.work / "tuned"
    with reporter() as told:
        told.status("first a build without any search")
        untuned = autotune.compile(model, shapes, output=default, status=told.status)
        told.status(f"now {given.seconds:.0f} seconds of search")
        result = autotune.tune(
            model,
            shapes,
            seconds=given.seconds,
            database=given.work / "tuning.db",
            output=tuned,
            progress=told.progress,
            status=told.status,
        )
        print(result.search.message)
        if result.search.stopped == "interrupted":
            return 130
        if result.compiled is None or result.search.stopped == "all_failed":
            return 1
        told.status("timing the builds and ONNX Runtime in turn")
        compared = bench(
            tuned, [str(default), "onnxruntime"], model, inputs={INPUT: line_of_text(TEXT)}
        )
    print(f"default build: {untuned.summary}")
    print(f"tuned build: {result.compiled.summary}")
    if not reads(autotune.load(tuned)):
        print("the model does not see what was drawn")
        return 1
    show(compared, default)
    # Not by max(), which may overlook a NaN.
    apart = [e.difference.relative for e in compared.engines if e.difference is not None]
    if not all(difference < TOLERANCE for difference in apart):
        print(f"the outputs differ by {apart} of their size: that is too much")
        return 1
    print(f"outputs agree on the line of text, within {max(apart):.1g} of their size")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"demo: {error}")
