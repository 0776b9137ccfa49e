"""PyTorch as a peer: the same names and values as the program that a .pt2 file holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.bench.peers import peer_named
from autotune.errors import ModelError

torch = pytest.importorskip("torch")


class Several(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Inputs in a dict, a number, and outputs in a dict: all that has to find its place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: Any, more: dict[str, Any], scale: int = 2) -> dict[str, Any]:
        made = torch.relu_(self.layer(x)) * scale
        return {"sum": made + more["b"], "product": made * more["a"], "none": None}


class Views(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Writes to its input through one of two views."""

    def forward(self, x: Any) -> Any:
        first, second = x.split(2)
        first.add_(second)
        return x.sum(0)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "several.pt2"
    rows = torch.export.Dim("rows")
    args = (torch.randn(3, 4), {"a": torch.randn(3, 2), "b": torch.randn(2)})
    shapes = {"x": {0: rows}, "more": {"a": {0: rows}, "b": None}, "scale": None}
    program = torch.export.export(Several().eval(), (*args, 3), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize("name", ["torch", "torch.compile"])
def test_inputs_and_outputs_have_their_names(several: Path, name: str) -> None:
    if name == "torch.compile" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    rng = np.random.default_rng(0)
    shapes = {"x": (5, 4), "more_a": (5, 2), "more_b": (2,)}
    inputs = {key: rng.standard_normal(shape).astype("float32") for key, shape in shapes.items()}
    for array in inputs.values():
        array.setflags(write=False)  # as a caller's may be
    weights = torch.export.load(several).state_dict
    weight, bias = (weights[f"layer.{key}"].detach().numpy() for key in ("weight", "bias"))
    found = peer_named(name).engine(several, inputs, 1).run()
    made = np.maximum(inputs["x"] @ weight.T + bias, 0) * 3
    assert sorted(found) == ["product", "sum"]
    np.testing.assert_allclose(found["sum"], made + inputs["more_b"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["product"], made * inputs["more_a"], rtol=1e-4, atol=1e-5)


def test_torch_compile_without_a_compiler_is_said_so(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as settings

    monkeypatch.setattr(settings.cpp, "cxx", (None, str(tmp_path / "none")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing was compiled before
    inputs = {"x": np.ones((7, 4), "float32"), "more_a": np.ones((7, 2), "float32")}
    inputs["more_b"] = np.ones(2, "float32")
    with pytest.raises(ModelError, match=r"needs a C\+\+ compiler and finds none: install g\+\+"):
        peer_named("torch.compile").engine(several, inputs, 1)


def test_a_program_that_writes_to_its_input_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "views.pt2"
    torch.export.save(torch.export.export(Views(), (torch.ones(4, 2),)), path)
    x = np.ones((4, 2), "float32")
    run = peer_named("torch").engine(path, {"x": x}, 1).run
    for _ in range(2):
        found = run()
        assert found["output_0"].tolist() == [6.0, 6.0]
        assert found["x"].tolist() == [[2, 2], [2, 2], [1, 1], [1, 1]]
    assert (x == 1).all()
