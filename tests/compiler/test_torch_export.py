"""Modules of torch are imported, compiled and tuned, and compute what torch computes."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import autotune  # noqa: E402
from autotune.errors import InputError, MissingDependency, ModelError  # noqa: E402
from autotune.frontends import import_model, verify_import  # noqa: E402
from autotune.frontends.sampling import sample_inputs  # noqa: E402
from autotune.frontends.torch_export import exported  # noqa: E402
from tests.compiler import torch_models  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def imported(module: Any, *inputs: Any) -> Any:
    return import_model(exported(module.eval(), inputs))


def names(model: Any) -> tuple[list[str], list[str]]:
    return [spec.name for spec in model.inputs], [spec.name for spec in model.outputs]


def test_convolutions_with_batch_norm(tmp_path: Path) -> None:
    """As in the README: a module in, an artifact out, again from the file that it is saved to."""
    module, image = torch_models.Convolutions().eval(), torch.randn(1, 3, 16, 16)
    result = autotune.compile(module, example_inputs=(image,), output=tmp_path / "out", threads=2)
    assert result.check is not None and result.check.error < 1e-5
    model = autotune.load(tmp_path / "out")
    with torch.no_grad():
        expected = module(image).numpy()
    found = model({"image": image})["output_0"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    torch.export.save(exported(module, image), tmp_path / "saved.pt2")
    again = autotune.reproduce(tmp_path / "out", tmp_path / "saved.pt2")
    # Only the name differs, which a module has from its class and a file from its path.
    assert [line.partition(" ")[0] for line in again.differences] == ["model.name"]


def test_names_follow_the_module() -> None:
    model = imported(torch_models.Recurrent(), torch.randn(1, 3, 8))
    assert names(model) == (["sequence"], ["states", "last_0", "last_1"])
    assert verify_import(model).error < 1e-5


LAYERS = {
    "lstm": (torch.nn.LSTM, {"bidirectional": True, "batch_first": True, "num_layers": 2}),
    "lstm without bias": (torch.nn.LSTM, {"bias": False}),
    "gru": (torch.nn.GRU, {"num_layers": 2}),
    "rnn": (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_long_recurrences_are_loops(name: str) -> None:
    kind, options = LAYERS[name]
    model = imported(kind(8, 20, **options), torch.randn(700, 3, 8))
    assert verify_import(model).error < 1e-5
    operator = name.partition(" ")[0]
    counted = model.module.script().count(f"cls.{operator}")
    assert counted == options.get("num_layers", 1)


def test_a_recurrence_that_is_no_loop_is_unrolled() -> None:
    model = imported(torch.nn.LSTM(8, 16, proj_size=4), torch.randn(5, 3, 8))
    assert "cls.lstm" not in model.module.script()
    assert verify_import(model).error < 1e-5


def test_booleans_are_counted_and_masked_rows_are_right() -> None:
    ids, mask = torch.randint(0, 50, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    model = imported(torch_models.Masked(), ids, mask)
    assert [spec.upper for spec in model.inputs] == [50, 0]
    assert np.array_equal(sample_inputs(model, 1)["mask"], mask.numpy())
    assert verify_import(model).error < 1e-5


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [4]], ids=["prefill", "decode"])
def test_states_of_a_decoder_go_in_and_come_out(places: list[int]) -> None:
    count = len(places)
    module = torch_models.Decoder()
    model = imported(module, torch.randint(0, 64, (1, count)), torch.tensor(places))
    states = [f"layers.{n}.{kind}" for n in (0, 1) for kind in ("keys", "values")]
    assert set(states) <= set(names(model)[0]) and set(states) < set(names(model)[1])
    assert any("is a state" in note for note in model.notes)
    assert verify_import(model).error < 1e-5


def test_the_float64_reference_is_close() -> None:
    model = imported(torch_models.Convolutions(), torch.randn(1, 3, 16, 16))
    given = sample_inputs(model, 0)
    double = model.reference.double(given)["output_0"]
    assert double.dtype == np.float64
    np.testing.assert_allclose(model.reference(given)["output_0"], double, rtol=1e-4, atol=1e-5)


def test_open_dimensions_are_fixed_by_shapes(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(
        torch_models.Convolutions().eval(), (torch.randn(2, 3, 16, 16),),
        dynamic_shapes=({0: batch},),
    )  # fmt: skip
    torch.export.save(program, tmp_path / "open.pt2")
    with pytest.raises(InputError, match=r"--input image=\?,3,16,16"):
        import_model(tmp_path / "open.pt2")
    with pytest.raises(InputError, match="fixes dimension 1 at 3"):
        import_model(tmp_path / "open.pt2", {"image": (2, 4, 16, 16)})
    model = import_model(tmp_path / "open.pt2", {"image": (3, 3, 16, 16)})
    assert model.outputs[0].shape == (3, 10)
    assert model.digest != import_model(tmp_path / "open.pt2", {"image": (4, 3, 16, 16)}).digest


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    module = torch_models.Convolutions().eval()
    program = exported(module, torch.randn(1, 3, 16, 16))
    torch.export.save(program, tmp_path / "saved.pt2")
    digest = import_model(program).digest
    code = "import sys, autotune.frontends as f; print(f.import_model(sys.argv[1]).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "saved.pt2"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == digest
    with torch.no_grad():
        module.last.bias[0] += 1
    assert import_model(exported(module, torch.randn(1, 3, 16, 16))).digest != digest


class Odd(torch.nn.Module):
    """Takes and returns more than tensors."""

    def forward(self, x: Any, factor: float, unread: Any) -> Any:
        return x * factor, None, {"same": x}


def test_what_is_no_tensor_is_part_of_the_program() -> None:
    model = imported(Odd(), torch.ones(3), 2.5, torch.ones(2))
    assert names(model) == (["x", "unread"], ["output_0", "output_2_same"])
    assert model.notes == ("input factor is fixed at 2.5",)
    verify_import(model)


class Indexing(torch.nn.Module):
    """Looks up rows from the end, which TVM would look for before the table."""

    def forward(self, table: Any, rows: Any) -> Any:
        return table[rows], table.clamp(min=0), table[-1]


def test_indices_may_be_negative() -> None:
    verify_import(imported(Indexing(), torch.randn(5, 4), torch.tensor([-1, 0, -5])))


class Drawing(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x + torch.rand(3)


class Counting(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.nonzero()


@pytest.mark.parametrize(
    ("module", "words"),
    [(Drawing(), "draws random numbers"), (Counting(), "cannot be compiled|depends on the data")],
)
def test_what_cannot_be_compiled_is_a_sentence(module: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        imported(module, torch.ones(3))


def test_wrong_use_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="give example_inputs"):
        autotune.compile(torch_models.Convolutions(), output=tmp_path / "out")
    with pytest.raises(InputError, match="example_inputs are for a module"):
        autotune.compile("model.onnx", example_inputs=(1,), output=tmp_path / "out")
    with pytest.raises(ModelError, match="a list is no model"):
        autotune.tune([1, 2], example_inputs=(1,))
    with pytest.raises(InputError, match="onnxruntime is given ONNX files alone"):
        autotune.tune(tmp_path / "model.pt2", until="onnxruntime")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'autotune\[torch\]'"):
        autotune.compile(tmp_path / "model.pt2", output=tmp_path / "out")


def test_a_module_is_tuned_and_compiled_from_what_was_found(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU()).eval()
    example = torch.randn(8, 32)
    result = autotune.tune(
        module, trials=3, database=tmp_path / "t.db", output=tmp_path / "out", threads=2,
        example_inputs=example,
    )  # fmt: skip
    assert result.search.done == 3 and result.compiled is not None
    assert result.compiled.manifest.tuned == len(result.compiled.manifest.tasks) == 1
    # Not torch.__version__, which may tell the build as well: "2.13.0+cpu".
    assert result.compiled.manifest.versions["torch"] == version("torch")
