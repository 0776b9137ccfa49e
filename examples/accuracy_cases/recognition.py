"""PP-OCRv4's recogniser: a line of text as a picture becomes characters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.accuracy_cases.case import Arrays, Case, Part, ocr_model, only
from examples.accuracy_cases.lines import Line, as_input, three_parts

FILE = "ch_PP-OCRv4_rec_infer.onnx"
INPUT, HEIGHT, WIDTH = "x", 48, 320
LINES = 56
"""In each part: every font in every size twice; some 800 characters. With half of them a mix was
chosen that lost nothing of what it was chosen by, and more than its budget of unseen lines."""


def characters(model: Path) -> list[str]:
    """What the classes of the model stand for, as its file says; the first is "none"."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    (known,) = (entry.value for entry in proto.metadata_props if entry.key == "character")
    return ["", *known.rstrip("\n").split("\n"), " "]


def decoded(scores: Any, known: Sequence[str]) -> str:
    """The likeliest class of each position: repetitions are one character, as in CTC.

    Margins, which are read as spaces, are none of the text.
    """
    best = scores.argmax(-1)
    read = (known[one] for i, one in enumerate(best) if i == 0 or one != best[i - 1])
    return "".join(read).strip()


def edits(one: str, other: str) -> int:
    """Characters to insert, leave out or replace until ``one`` is ``other``."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def error_rate(texts: Sequence[str], read: Sequence[str]) -> float:
    """Wrong characters of all."""
    wrong = sum(edits(text, other) for text, other in zip(texts, read, strict=True))
    return wrong / sum(map(len, texts))


def part(lines: Sequence[Line], known: Sequence[str]) -> Part:
    """``lines`` as samples; the score is one less the rate of wrong characters."""
    texts = [line.text for line in lines]

    def read(outputs: Sequence[Arrays]) -> list[str]:
        return [decoded(only(one), known) for one in outputs]

    def besides(outputs: Sequence[Arrays]) -> dict[str, float]:
        same = [a == b for a, b in zip(texts, read(outputs), strict=True)]
        return {"lines without fault": sum(same) / len(same)}

    samples = [{INPUT: as_input(line.pixels, HEIGHT, WIDTH)} for line in lines]
    return Part(samples, lambda outputs: 1 - error_rate(texts, read(outputs)), besides)


def case() -> Case:
    """Raises ``MissingDependency``."""
    model = ocr_model(FILE)
    known = characters(model)
    calibration, seen, unseen = (part(lines, known) for lines in three_parts(LINES))
    shapes = {INPUT: (1, 3, HEIGHT, WIDTH)}
    title = "1 - character error rate"
    return Case("rec", model, shapes, title, 0.005, calibration.samples, seen, unseen)
