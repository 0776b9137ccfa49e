"""Loading and running: what is checked, what is refused, and how little is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import autotune
from autotune.artifact.build import build
from autotune.errors import ArtifactError, InputError
from autotune.runtime import empty, load
from autotune.target import native
from search_spaces.cpu.tiles import TileSpace
from search_spaces.registry import register, unregister
from tests.compiler.artifacts import PackingSpace, expected, fused
from tests.end_to_end.models import model as onnx_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register(PackingSpace())
    path = tmp_path_factory.mktemp("artifact") / "out"
    build(fused(native(2)), {}, path)
    unregister("test.packing")
    return path


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((16, 64)).astype("float32")}


def copied(artifact: Path, place: Path) -> Path:
    place.mkdir()
    for file in artifact.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


def edit(artifact: Path, **changes: object) -> None:
    file = artifact / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_it_runs_with_the_runtime_alone(artifact: Path, tmp_path: Path) -> None:
    """Neither the compiler nor any of our other dependencies may be needed."""
    np.savez(tmp_path / "in.npz", **inputs())
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    names = {'optuna', 'xgboost', 'onnx', 'onnxruntime', 'onnxslim', 'typer', 'rich',\n"
        "             'sqlite_utils', 'pydantic', 'scipy', 'torch', 'search_spaces', 'tuning_db'}\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in self.names: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import numpy, autotune\n"
        "given = dict(numpy.load(sys.argv[2]))\n"
        "numpy.savez(sys.argv[3], **autotune.load(sys.argv[1])(given))\n"
        "from tvm.base import _RUNTIME_ONLY\n"
        "assert _RUNTIME_ONLY\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, artifact, tmp_path / "in.npz", tmp_path / "out.npz"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "TVM_USE_RUNTIME_LIB": "1", "PYTHONPATH": str(ROOT)},
    )
    found = np.load(tmp_path / "out.npz")["y"]
    np.testing.assert_allclose(found, expected(inputs()["x"]), rtol=1e-4, atol=1e-4)


def test_an_artifact_that_took_the_place_of_another_is_what_runs(tmp_path: Path) -> None:
    place, given, models = tmp_path / "out", np.ones((4, 8), "float32"), []
    for scale in (2.0, 3.0):
        # Both stay loaded, and the second has another number of weights.
        weights = {f"w{i}": np.full((4, 32), scale, "float32")[:, :8] for i in range(int(scale))}
        nodes = [
            onnx.helper.make_node("Add", ["x" if i == 0 else f"h{i}", f"w{i}"], [f"h{i + 1}"])
            for i in range(int(scale))
        ]
        nodes[-1].output[0] = "y"
        path = onnx_model(tmp_path / "m.onnx", nodes, {"x": (4, 8)}, weights=weights)
        autotune.compile(path, output=place, threads=2)
        models.append(load(place))
        assert (models[-1]({"x": given})["y"] == 1 + scale * scale).all()


def test_calls_from_several_threads_do_not_mix(artifact: Path) -> None:
    model = autotune.load(artifact)
    wrong: list[int] = []

    def work(seed: int) -> None:
        given = inputs(seed)
        for _ in range(50):
            if not np.allclose(model(given)["y"], expected(given["x"]), rtol=1e-4, atol=1e-4):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


BUSY = """
import sys, time
from pathlib import Path
import numpy, autotune

def worked():
    folders = Path("/proc/self/task").iterdir()
    return {f.name: int((f / "schedstat").read_text().split()[0]) for f in folders}

given, model = dict(numpy.load(sys.argv[1])), autotune.load(sys.argv[2])
model(given)
time.sleep(0.3)  # workers spin for a while before they sleep
before = worked()
for _ in range(2000):
    model(given)
after = worked()
print(sum(after[t] - before.get(t, 0) > 500_000 for t in after))
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs and /proc",
)
@pytest.mark.parametrize("variable", [None, "1", "2"])
def test_it_uses_its_threads_whatever_the_environment_says(
    artifact: Path, tmp_path: Path, variable: str | None
) -> None:
    # TVM takes half of the cores where nobody tells it, which on two cores is one.
    np.savez(tmp_path / "in.npz", **inputs())
    environment = {k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"}
    if variable is not None:
        environment["TVM_NUM_THREADS"] = variable
    done = subprocess.run(
        [sys.executable, "-c", BUSY, tmp_path / "in.npz", artifact],
        check=True, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "2"


def test_outputs_belong_to_the_caller(artifact: Path) -> None:
    model = load(artifact)
    first = model(inputs(0))["y"]
    kept = first.copy()
    model(inputs(1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "input x is missing"),
        ({"x": np.zeros((16, 65), "float32")}, "16x65.*compiled for 16x64"),
        ({"x": np.zeros((16, 64))}, "float64 but the model takes float32"),
        ({"x": np.zeros((16, 64), "float32"), "z": np.zeros(1)}, "no input z"),
    ],
)
def test_faulty_inputs_are_explained(
    artifact: Path, given: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load(artifact)(given)


def test_any_memory_order_is_taken(artifact: Path) -> None:
    given = inputs()
    turned = {"x": np.asfortranarray(given["x"])}
    np.testing.assert_array_equal(load(artifact)(turned)["y"], load(artifact)(given)["y"])


def test_a_changed_library_is_refused(artifact: Path, tmp_path: Path) -> None:
    place = copied(artifact, tmp_path / "copy")
    data = bytearray((place / "lib.so").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "lib.so").write_bytes(data)
    with pytest.raises(ArtifactError, match="not the file that was compiled"):
        load(place)
    (place / "lib.so").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(place)


def test_other_formats_machines_and_damage_are_refused(artifact: Path, tmp_path: Path) -> None:
    place = copied(artifact, tmp_path / "copy")
    target = json.loads((place / "manifest.json").read_text())["target"]
    edit(place, format=99)
    with pytest.raises(ArtifactError, match="format 99"):
        load(place)
    edit(place, format=1, target={**target, "triple": "riscv64-linux-gnu"})
    with pytest.raises(ArtifactError, match="code for riscv64"):
        load(place)
    edit(place, target={**target, "features": ["+amx-fp64"]}, inputs=[{"name": "x"}])
    with pytest.raises(ArtifactError, match="damaged"):
        load(place)
    (place / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        load(place)
    with pytest.raises(ArtifactError, match="not an artifact"):
        load(tmp_path)


@pytest.mark.parametrize("allowed", [True, False])
def test_room_for_tiles_is_asked_for(
    allowed: bool, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a kernel has tiles."""
    place = copied(artifact, tmp_path / "copy")
    monkeypatch.setattr("autotune.runtime._tiles_allowed", lambda: allowed)
    load(place)
    tasks = json.loads((place / "manifest.json").read_text())["tasks"]
    edit(place, tasks=[{**tasks[0], "space": TileSpace.name}, *tasks[1:]])
    if allowed:
        load(place)
    else:
        with pytest.raises(ArtifactError, match="no room for its tiles"):
            load(place)


def test_missing_instructions_are_named(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copied(artifact, tmp_path / "copy")
    target = json.loads((place / "manifest.json").read_text())["target"]
    edit(place, target={**target, "features": ["+avx2", "+avx512f"]})
    monkeypatch.setattr("autotune.runtime._flags", lambda: frozenset({"avx2"}))
    with pytest.raises(ArtifactError, match=r"lacks \(avx512f\)"):
        load(place)


def aligned(array: np.ndarray) -> np.ndarray:
    made = empty(array.shape, array.dtype.name)
    made[...] = array
    return made


def test_aligned_inputs_and_all_outputs_are_not_copied(artifact: Path) -> None:
    model = load(artifact)
    x = aligned(inputs()["x"])
    assert x.ctypes.data % 64 == 0
    (tensor,) = model.tensors({"x": x})
    assert tensor.data_ptr() == x.ctypes.data
    other = empty((16 * 64 + 1,), "float32")[1:].reshape(16, 64)
    other[...] = x
    (copied_one,) = model.tensors({"x": other})
    assert copied_one.data_ptr() != other.ctypes.data
    result = model.execute([tensor])
    found = model.fetch(result, [tensor])["y"]
    assert found.ctypes.data == result.data_ptr()
    np.testing.assert_array_equal(found, model({"x": other})["y"])
    kept = found.copy()
    del result
    for seed in range(5):  # the memory must not be given away while it is looked at
        model(inputs(seed))
    np.testing.assert_array_equal(found, kept)
    found += 1  # and it is ours to write to


class Spoken:
    """An array of another library: DLPack is all that it speaks."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_dlpack_goes_in_and_out(artifact: Path) -> None:
    model = load(artifact)
    x = aligned(inputs()["x"])
    (tensor,) = model.tensors({"x": Spoken(x)})
    assert tensor.data_ptr() == x.ctypes.data
    found = model({"x": Spoken(x)})["y"]
    np.testing.assert_allclose(found, expected(x), rtol=1e-4, atol=1e-4)
    assert np.from_dlpack(Spoken(found)).ctypes.data == found.ctypes.data


def test_read_only_inputs_are_taken(artifact: Path) -> None:
    x = aligned(inputs()["x"])
    x.flags.writeable = False
    np.testing.assert_array_equal(load(artifact)({"x": x})["y"], load(artifact)(inputs())["y"])


def test_outputs_that_are_inputs_or_weights_are_copied(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    weight = np.arange(6, dtype="float32")
    proto = helper.make_model(
        helper.make_graph(
            [node("Identity", ["x"], ["same"]), node("Identity", ["w"], ["w_out"]),
             node("Neg", ["x"], ["y"])],
            "made",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, [6])
             for n in ("same", "w_out", "y")],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(proto, tmp_path / "model.onnx")
    autotune.compile(tmp_path / "model.onnx", output=tmp_path / "out", threads=2)
    model = load(tmp_path / "out")
    x = aligned(weight)
    first = model({"x": x})
    assert first["same"].ctypes.data != x.ctypes.data
    for value in first.values():
        value += 100
    np.testing.assert_array_equal(x, weight)
    second = model({"x": x})
    np.testing.assert_array_equal(second["same"], weight)
    np.testing.assert_array_equal(second["w_out"], weight)
    np.testing.assert_array_equal(second["y"], -weight)
