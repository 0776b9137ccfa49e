"""PP-OCR's classifier of directions: is a line of text upside down?"""

from __future__ import annotations

from collections.abc import Sequence

from examples.accuracy_cases.case import Arrays, Case, Part, ocr_model, only
from examples.accuracy_cases.lines import Line, as_input, three_parts

FILE = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
INPUT, HEIGHT, WIDTH = "x", 48, 192
LINES = 56


def part(lines: Sequence[Line]) -> Part:
    """Each line both ways round; the score is how many are told right."""
    import numpy as np

    samples = [
        {INPUT: as_input(np.rot90(line.pixels, 2 * turned), HEIGHT, WIDTH)}
        for line in lines
        for turned in (0, 1)
    ]
    truth = np.tile([0, 1], len(lines))

    def score(outputs: Sequence[Arrays]) -> float:
        return float(np.mean([only(one).argmax() for one in outputs] == truth))

    def besides(outputs: Sequence[Arrays]) -> dict[str, float]:
        sure = [only(one)[right] for one, right in zip(outputs, truth, strict=True)]
        return {"mean score of the right one": float(np.mean(sure))}

    return Part(samples, score, besides)


def case() -> Case:
    """Raises ``MissingDependency``."""
    calibration, seen, unseen = (part(lines) for lines in three_parts(LINES))
    shapes = {INPUT: (1, 3, HEIGHT, WIDTH)}
    model = ocr_model(FILE)
    return Case("cls", model, shapes, "accuracy", 0.01, calibration.samples, seen, unseen)
