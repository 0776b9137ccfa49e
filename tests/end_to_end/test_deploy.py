"""Artifacts leave this machine: to a program without Python, and to another architecture."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from autotune.errors import ArtifactError
from tests.end_to_end.models import ENVIRONMENT, ROOT, autotune, cnn

BUILD = ROOT / "examples" / "cpp" / "build.sh"
X = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("float32")
OTHER = "x86_64" if platform.machine() == "aarch64" else "aarch64"
NAMES = {"aarch64": ("aarch64", 183), "x86_64": ("x86-64-v3", 62)}
"""Our names of targets, and the machine numbers of ELF files."""


def expected(model: Path) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": X})[0]
    return found


def run_binary(program: list[str], artifact: Path, folder: Path) -> np.ndarray:
    """What the C++ example makes of ``X``, in ``folder``."""
    X.tofile(folder / "x.bin")
    done = subprocess.run(
        [*program, str(artifact), str(folder), "3"], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert "1 outputs, fastest of 3 calls" in done.stdout
    return np.fromfile(folder / "y.bin", "float32").reshape(1, 10)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_program_in_cpp_runs_an_artifact(tmp_path: Path) -> None:
    model, program = cnn(tmp_path / "cnn.onnx"), tmp_path / "run_artifact"
    autotune("compile", model, "--threads", 2, "--output", tmp_path / "artifact")
    subprocess.run([BUILD, program], check=True, env=os.environ | {"PYTHON": sys.executable})
    found = run_binary([str(program)], tmp_path / "artifact", tmp_path)
    np.testing.assert_allclose(found, expected(model), rtol=1e-4, atol=1e-5)
    (tmp_path / "x.bin").write_bytes(b"short")
    done = subprocess.run(
        [program, tmp_path / "artifact", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1 and "not as large" in done.stderr


needs_linker = pytest.mark.skipif(
    not (shutil.which(f"{OTHER}-linux-gnu-gcc") or importlib.util.find_spec("ziglang")),
    reason=f"needs a linker for {OTHER}: gcc-{OTHER}-linux-gnu, or ziglang from PyPI",
)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its artifact for the other architecture."""
    folder = tmp_path_factory.mktemp("crossed")
    words = ("--target", NAMES[OTHER][0], "--threads", 2, "--output", folder / "artifact")
    autotune("compile", cnn(folder / "cnn.onnx"), *words)
    return folder


@needs_linker
def test_an_artifact_for_another_architecture_is_made_and_refused_here(crossed: Path) -> None:
    from autotune.runtime import load

    header = (crossed / "artifact" / "lib.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == NAMES[OTHER][1]
    target = json.loads((crossed / "artifact" / "manifest.json").read_text())["target"]
    assert target["triple"].startswith(OTHER)
    with pytest.raises(ArtifactError, match=f"code for {OTHER}"):
        load(crossed / "artifact")


def test_without_a_linker_for_it_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "ziglang.py").write_text("raise ImportError")
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *r: None if n == 'ziglang' else find(n, *r)\n"
        "from autotune.cli.main import main\n"
        "sys.exit(main())\n"
    )
    model = cnn(tmp_path / "cnn.onnx")
    words = ["compile", model, "--target", NAMES[OTHER][0], "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True,
        env=ENVIRONMENT | {"PATH": str(tmp_path), "CC": "cc"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"no linker for {OTHER}" in done.stderr and "ziglang" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_linker
@pytest.mark.skipif(
    OTHER != "aarch64" or not shutil.which("qemu-aarch64"),
    reason="needs qemu-aarch64 (qemu-user) on another machine than aarch64",
)
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="needs g++-aarch64-linux-gnu")
def test_an_artifact_for_another_architecture_runs_there(crossed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    wanted = [f"{name}=={version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")]
    kinds = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64"]
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
         *kinds, "--dest", tmp_path, *wanted],
        capture_output=True, text=True,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"no TVM runtime for aarch64 to be had: {got.stderr.strip()[-200:]}")
    for wheel in tmp_path.glob("*.whl"):
        shutil.unpack_archive(wheel, site, "zip")
    program = tmp_path / "run_artifact"
    changed = {"CXX": "aarch64-linux-gnu-g++", "SITE": str(site)}
    subprocess.run([BUILD, program], check=True, env=os.environ | changed)
    runner = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(program)]
    found = run_binary(runner, crossed / "artifact", tmp_path)
    np.testing.assert_allclose(found, expected(crossed / "cnn.onnx"), rtol=1e-4, atol=1e-5)
