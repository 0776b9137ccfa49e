"""A .pt2 file is loaded only if nothing in it could run anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from autotune.errors import ModelError  # noqa: E402
from autotune.frontends.torch_file import read_program  # noqa: E402


class Mine:
    """A class whose objects run something where they are unpickled."""

    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    batch = torch.export.Dim("batch", max=8)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def changed(saved: Path, path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of ``saved`` with the file that ends in ``name`` changed."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.endswith(name) else content)
    return path


def in_model(**values: Any) -> Callable[[bytes], bytes]:
    """Set keys wherever the program's JSON has them."""

    def visit(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                key: values[key] if key in values and (key != "target" or "inputs" in part)
                else visit(value)
                for key, value in part.items()
            }  # fmt: skip
        return [visit(each) for each in part] if isinstance(part, list) else part

    return lambda content: json.dumps(visit(json.loads(content))).encode()


def pickled(_: bytes) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(((Mine(),), {}), buffer)
    return buffer.getvalue()


def use_pickle(content: bytes) -> bytes:
    config = json.loads(content)
    for entry in config["config"].values():
        entry["use_pickle"] = True
    return json.dumps(config).encode()


def test_an_honest_file_is_loaded(saved: Path) -> None:
    x = torch.randn(5, 4)
    assert read_program(saved).module()(x).shape == (5, 3)


CALL = "__import__('builtins').print('this ran')"
NAMED = json.dumps([1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model.json", in_model(target="torch.os.system"), "calls torch.os.system"),
        ("model.json", in_model(target="_operator.methodcaller"), "no operator of ATen"),
        ("model.json", in_model(expr_str=CALL), "no arithmetic"),
        ("model.json", in_model(expr_str="Symbol('s0').func"), "no arithmetic"),
        ("model.json", in_model(in_spec=NAMED), "containers other than"),
        ("weights_config.json", use_pickle, "as pickles"),
        ("sample_inputs/model.pt", pickled, "more than tensors"),
        ("model.json", lambda content: content[:100], "only a part of one"),
    ],
)
def test_whatever_could_run_is_refused(
    saved: Path, tmp_path: Path, name: str, change: Any, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = changed(saved, tmp_path / "bad.pt2", name, change)
    with pytest.raises(ModelError, match=words):
        read_program(path)
    assert "this ran" not in capsys.readouterr().out


def test_other_files_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        read_program(tmp_path / "none.pt2")
    with pytest.raises(ModelError, match="is a directory"):
        read_program(tmp_path)
    (tmp_path / "text.pt2").write_text("text")
    with pytest.raises(ModelError, match="no file of torch.export"):
        read_program(tmp_path / "text.pt2")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt2")
    with pytest.raises(ModelError, match="no program of torch.export"):
        read_program(tmp_path / "weights.pt2")
