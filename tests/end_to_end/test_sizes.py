"""One artifact for several sizes of the inputs: a program for each, their weights once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.models import autotune, cnn, refused

SIZES = "x=1/3,3,16,16"
LABEL = {1: "1x3x16x16", 3: "3x3x16x16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an artifact of two sizes with tuned schedules, and the database they are from."""
    place = tmp_path_factory.mktemp("sizes")
    cnn(place / "cnn.onnx", image=("n", 3, 16, 16))
    tuned = ("--trials", 16, "--threads", 1, "--sampler", "random", "--db", place / "tuning.db")
    autotune("tune", place / "cnn.onnx", "--input", SIZES, *tuned, "--output", place / "both")
    return place


def image(batch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(batch).standard_normal((batch, 3, 16, 16)).astype("float32")


def expected(folder: Path, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import onnxruntime

    model = str(folder / "cnn.onnx")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, {"x": given})[0]
    return found


@pytest.mark.parametrize("batch", LABEL)
def test_what_is_given_decides_which_size_runs(folder: Path, tmp_path: Path, batch: int) -> None:
    np.save(tmp_path / "x.npy", image(batch))
    words = ("--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "out.npz")
    autotune("run", folder / "both", *words)
    found = np.load(tmp_path / "out.npz")["y"]
    np.testing.assert_allclose(found, expected(folder, image(batch)), rtol=1e-4, atol=1e-5)
    autotune("run", folder / "both" / LABEL[batch], *words)  # a size is an artifact by itself
    assert np.array_equal(np.load(tmp_path / "out.npz")["y"], found)
    np.save(tmp_path / "x.npy", image(2))
    assert "x 1x3x16x16 or x 3x3x16x16" in refused("run", folder / "both", *words)


def test_the_weights_are_there_once_and_in_one_place_of_memory(folder: Path) -> None:
    import autotune as library

    both = library.load(folder / "both")
    assert isinstance(both, library.SizedModel) and set(both.sizes) == set(LABEL.values())
    for batch in LABEL:
        given = image(batch)
        assert np.allclose(both({"x": given})["y"], expected(folder, given), rtol=1e-4, atol=1e-5)
    one, three = (both.pick({"x": image(batch)}) for batch in LABEL)
    places = [{weight.data_ptr() for weight in m._machine._weights} for m in (one, three)]
    assert places[0] & places[1]
    weights = 4 * (8 * 3 * 9 + 8 + 8 * 8 * 9 + 8 + 10 * 8 + 10)
    assert (folder / "both" / "weights.npy").stat().st_size < 2 * weights
    with pytest.raises(library.UserError, match="input x is missing"):
        both({})


def test_sizes_are_made_again_byte_for_byte(folder: Path) -> None:
    words = ("--model", folder / "cnn.onnx", "--db", folder / "tuning.db")
    told = autotune("reproduce", folder / "both", *words).stdout
    assert "the same bytes" in told and f"{LABEL[3]}/lib.so" in told and "weights.npy" in told
    assert "the directory above" in refused("reproduce", folder / "both" / LABEL[1], *words)


def test_both_sizes_are_tuned(folder: Path) -> None:
    words = ("--db", folder / "tuning.db", "--threads", 1, "--output", folder / "again", "--json")
    told = autotune("compile", folder / "cnn.onnx", "--input", SIZES, *words).stdout

    sizes = json.loads(told)["sizes"]
    assert all(size["tuned"] == size["tasks"] > 0 for size in sizes.values()), sizes


def test_a_file_that_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    import autotune as library

    for name in ("weights.npy", f"{LABEL[3]}/manifest.json", f"{LABEL[1]}/lib.so"):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder / "both", tmp_path / "copy")
        with (tmp_path / "copy" / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(library.UserError, match="is not the file that was compiled"):
            library.load(tmp_path / "copy")
    (tmp_path / "copy" / "weights.npy").unlink()
    with pytest.raises(library.UserError, match="cannot be read"):
        library.load(tmp_path / "copy" / LABEL[3])


def test_one_size_is_gated_like_any_artifact(folder: Path, tmp_path: Path) -> None:
    size, words = folder / "both" / LABEL[3], ("--baseline", tmp_path / "b.json", "--time", "1s")
    autotune("check", size, *words, "--update")
    limits = ("--latency", "300%", "--p99", "900%")
    assert "not worse" in autotune("check", size, *words, *limits).stdout


def test_what_is_no_set_of_sizes_gets_a_sentence(folder: Path) -> None:
    model, output = folder / "cnn.onnx", ("--output", folder / "never")
    told = refused("compile", model, "--input", "x=1/2,3,16/32/64,16", *output)
    assert "2 and 3 sizes" in told
    assert "named twice" in refused("compile", model, "--input", "x=2/2,3,16,16", *output)
    told = refused("tune", model, "--input", SIZES, "--graph", "--time", "1s", *output)
    assert "for one size" in told
    assert "name one of them" in refused("bench", folder / "both", "--model", model)
    assert not (folder / "never").exists()
