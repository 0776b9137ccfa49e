"""PP-OCRv4's detector: where on a page are lines of text?

Its output is a map of the insides of the lines, which are smaller than the lines by a known rule;
undone, that gives boxes to compare with those that were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.accuracy_cases.case import Arrays, Case, Part, ocr_model, only
from examples.accuracy_cases.lines import FONTS, INKS, PAPERS, TEXTS, font, grained, scaled

FILE = "ch_PP-OCRv4_det_infer.onnx"
INPUT, SIDE = "x", 320
PAGES = 16
THRESHOLD = 0.3
UNCLIP = 1.6
"""Of area over circumference, that a line is larger by on each side than its inside."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True)
class Page:
    """The picture of a page and where its lines are."""

    pixels: Any
    boxes: tuple[Box, ...]


def page(seed: int, texts: Sequence[str] = TEXTS, fonts: Sequence[str] = FONTS) -> Page:
    """Lines of several sizes below each other."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (SIDE, SIDE), PAPERS[rng.integers(len(PAPERS))])
    pen, ink = ImageDraw.Draw(image), INKS[rng.integers(len(INKS))]
    used, boxes, below = fonts[seed % len(fonts)], [], 12.0
    while True:
        size = int(rng.integers(15, 27))
        if below + 1.5 * size > SIDE:
            break
        text, left = texts[rng.integers(len(texts))], float(rng.integers(8, 60))
        face = font(used, size)
        # As people mark lines: from the top of the highest letter there may be to the lowest end.
        high, wide = sum(face.getmetrics()), face.getlength(text)
        if left + wide < SIDE - 8:
            pen.text((left, below), text, fill=ink, font=face)
            boxes.append((left, below, left + wide, below + high))
        below += size * float(rng.uniform(1.7, 2.6))
    return Page(grained(np.asarray(image), rng), tuple(boxes))


def found_boxes(scores: Any) -> list[Box]:
    """The boxes that a map of scores means."""
    from scipy import ndimage

    labels, _ = ndimage.label(scores > THRESHOLD)
    boxes: list[Box] = []
    for rows, columns in ndimage.find_objects(labels):
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        if min(high, wide) < 3:
            continue
        more = UNCLIP * high * wide / (2 * (high + wide))
        boxes.append(
            (columns.start - more, rows.start - more, columns.stop + more, rows.stop + more)
        )
    return boxes


def overlap(one: Box, other: Box) -> float:
    """What two boxes have in common, of what either covers."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0.0) * max(high, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)


def part(pages: Sequence[Page]) -> Part:
    """The score is the mean overlap of a line that was drawn with the box that fits it best."""
    import numpy as np

    samples = [{INPUT: scaled(one.pixels)[None]} for one in pages]

    def overlaps(outputs: Sequence[Arrays]) -> list[float]:
        found = [found_boxes(only(one)[0]) for one in outputs]
        return [
            max((overlap(box, other) for other in there), default=0.0)
            for one, there in zip(pages, found, strict=True)
            for box in one.boxes
        ]

    def besides(outputs: Sequence[Arrays]) -> dict[str, float]:
        return {"lines found": float(np.mean(np.array(overlaps(outputs)) > 0.5))}

    return Part(samples, lambda outputs: float(np.mean(overlaps(outputs))), besides)


def case() -> Case:
    """Raises ``MissingDependency``."""
    every = [page(seed, TEXTS[seed % 3 :: 3]) for seed in range(3 * PAGES)]
    calibration, seen, unseen = (part(every[i::3]) for i in range(3))
    shapes, model = {INPUT: (1, 3, SIDE, SIDE)}, ocr_model(FILE)
    title = "mean overlap of boxes"
    return Case("det", model, shapes, title, 0.005, calibration.samples, seen, unseen)
