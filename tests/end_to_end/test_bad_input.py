"""Whatever is wrong with what a user gives: one sentence with the cure, exit 2, nothing changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.end_to_end.models import autotune, layers, model

BOTH = ("tune", "compile")
STATUS = ("importing ", "fusing operators", "comparing the import ")
LONGEST = 600
node = helper.make_node


@dataclass(frozen=True)
class Place:
    """A folder with a good model and the database of an earlier run."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "layers.onnx"

    @property
    def database(self) -> Path:
        return self.folder / "tuning.db"

    @property
    def output(self) -> Path:
        return self.folder / "artifact"

    def refused(self, command: str, *words: Any, **changed: Path) -> str:
        """The one sentence that ``command`` ends with; checks that everything is as before."""
        files = {"model": self.model, "db": self.database, "output": self.output, **changed}
        budget = ["--trials", 3] if command == "tune" else []
        before = contents(self.folder)
        done = autotune(
            command, files["model"], "--db", files["db"], "--output", files["output"],
            *budget, *words, folder=self.folder, check=False,
        )  # fmt: skip
        assert done.returncode == 2, f"exit {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith(STATUS)]
        # TVM's own logging, which nothing turns off: it says so when a pass was left by an error.
        lines = [line for line in lines if "block_builder.cc" not in line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("autotune: ")
        assert len(lines[0]) < LONGEST + len(str(self.folder))
        assert contents(self.folder) == before, "not even a side file of the database is left"
        return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder below ``folder``."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where a model was tuned before."""
    made = Place(tmp_path_factory.mktemp("earlier"))
    layers(made.model)
    autotune("tune", made.model, "--trials", 2, "--db", made.database)
    assert sorted(contents(made.folder)) == ["layers.onnx", "tuning.db"]
    return made


@pytest.fixture
def place(earlier: Place, tmp_path: Path) -> Place:
    return Place(Path(shutil.copytree(earlier.folder, tmp_path / "place")))


# The model


def missing(path: Path) -> None:
    """Make nothing."""


def of_text(path: Path) -> None:
    path.write_text("These are my notes, and no model at all.\n" * 50)


def truncated(path: Path) -> None:
    layers(path)
    path.write_bytes(path.read_bytes()[:-5000])


def without_its_weights(path: Path) -> None:
    layers(path)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (path.parent / "weights.bin").unlink()


def open_batch(path: Path) -> None:
    layers(path, ("batch", 32))


def with_foreign_operators(path: Path) -> None:
    nodes = [
        node("Multinomial", ["x"], ["d"]),
        node("MyNorm", ["x"], ["n"], domain="my.domain"),
        node("MyNorm", ["n"], ["m"], domain="my.domain"),
        node("Add", ["d", "m"], ["y"]),
    ]
    model(path, nodes, {"x": (1, 4, 4)})
    proto = onnx.load(path)
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    onnx.save(proto, path)


def wrongly_imported(path: Path) -> None:
    # TVM's importer takes no notice of training: the result is another one, and a random one.
    nodes = [
        node("Neg", ["x"], ["n"]),
        node("Dropout", ["n", "ratio", "training"], ["y"]),
    ]
    weights = {"ratio": np.float32(0.5), "training": np.array(True)}
    model(path, nodes, {"x": (4, 4)}, weights=weights)


def not_compilable(path: Path) -> None:
    # Known to TVM's importer, and only found to be unknown when the code is run.
    nodes = [
        node("Cast", ["x"], ["u"], to=onnx.TensorProto.UINT64),
        node("TopK", ["u", "k"], ["t", "i"]),
        node("Cast", ["t"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    model(path, nodes, {"x": (4, 4)}, weights={"k": np.array([2])})
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)


@pytest.mark.parametrize("command", BOTH)
@pytest.mark.parametrize(
    ("make", "words", "says"),
    [
        (missing, [], ["no file", "bad.onnx", "check the path"]),
        (of_text, [], ["bad.onnx", "not an ONNX model", "export or copy it again"]),
        (truncated, [], ["bad.onnx", "not an ONNX model", "export or copy it again"]),
        (without_its_weights, [], ["weights.bin", "missing", "put it into"]),
        (open_batch, [], ["open", "give numbers", "--input x=?,32"]),
        (open_batch, ["--input", "z=1,32"], ["'z'", "its inputs are x"]),
        (open_batch, ["--input", "x=1,32,1"], ["input x", "2 dimensions (?,32)", "3 were given"]),
        (with_foreign_operators, [], ["Multinomial (1×)", "my.domain.MyNorm (2×)", "without"]),
        (
            wrongly_imported,
            [],
            ["output y", "differs from onnxruntime's", "Dropout", "report the model"],
        ),
    ],
)
def test_the_model_is_at_fault(
    place: Place, make: Callable[[Path], None], words: list[str], says: list[str], command: str
) -> None:
    bad = place.folder / "bad.onnx"
    make(bad)
    said = place.refused(command, *words, model=bad)
    for part in says:
        assert part in said


def test_the_model_uses_an_operator_in_a_way_that_is_only_refused_when_it_runs(
    place: Place,
) -> None:
    bad = place.folder / "bad.onnx"
    not_compilable(bad)
    said = place.refused("compile", model=bad)
    assert "uint64" in said
    assert "export it without" in said


# The target


@pytest.mark.parametrize("command", BOTH)
def test_an_unknown_target(place: Place, command: str) -> None:
    said = place.refused(command, "--target", "z80")
    for part in ("no target 'z80'", "native", "x86-64-v3", "JSON file"):
        assert part in said


def test_a_target_that_this_machine_cannot_measure(place: Place) -> None:
    said = place.refused(
        "tune", "--target", "aarch64" if os.uname().machine == "x86_64" else "x86-64"
    )
    assert "this machine is" in said
    assert "compile for it without measuring" in said
    said = place.refused("tune", "--threads", 4096)
    assert "4096 threads" in said
    assert "use --threads" in said


# The database


def no_sqlite(path: Path) -> None:
    path.write_bytes(b"model,time\nresnet,3\n" * 100)


def of_another_program(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE bookmarks (url TEXT)")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096, 3):
        content[page * 4096 : page * 4096 + 2048] = os.urandom(2048)
    path.write_bytes(content)


def of_a_newer_version(path: Path) -> None:
    change(
        path,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('tuning_db', '9999_later', '2031-01-01')",
    )


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("command", BOTH)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_sqlite, ["not a SQLite database", "--db"]),
        (of_another_program, ["something else", "--db"]),
        (damaged, ["is damaged", "restore a copy"]),
        (of_a_newer_version, ["newer version of autotune (9999_later)", "upgrade"]),
    ],
)
def test_the_database_is_at_fault(
    place: Place, spoil: Callable[[Path], None], says: list[str], command: str
) -> None:
    spoil(place.database)
    said = place.refused(command)
    for part in ("tuning.db", *says):
        assert part in said


def test_a_database_that_cannot_be_made(place: Place) -> None:
    said = place.refused("tune", db=place.folder / "nowhere" / "tuning.db")
    assert "nowhere does not exist: make it" in said
    said = place.refused("compile", db=place.folder / "other.db")
    assert "other.db" in said
    assert "autotune tune" in said


# The output


def below_a_file(folder: Path) -> Path:
    return folder / "layers.onnx" / "artifact"


def in_no_real_folder(folder: Path) -> Path:
    return Path("/proc/artifact")


def in_the_place_of_a_file(folder: Path) -> Path:
    return folder / "layers.onnx"


def in_the_place_of_other_things(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("command", BOTH)
@pytest.mark.parametrize(
    "output",
    [below_a_file, in_no_real_folder, in_the_place_of_a_file, in_the_place_of_other_things],
)
def test_the_output_is_at_fault(place: Place, output: Callable[[Path], Path], command: str) -> None:
    path = output(place.folder)
    said = place.refused(command, output=path)
    assert str(path) in said
    assert "name another directory" in said or "name a directory" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("command", BOTH)
def test_a_folder_of_someone_else(place: Place, command: str) -> None:
    locked = place.folder / "locked"
    locked.mkdir(mode=0o500)
    said = place.refused(command, output=locked / "artifact")
    assert "Permission denied" in said
    assert "name another directory" in said
