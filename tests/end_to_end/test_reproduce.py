"""The same artifact can be made again: elsewhere, later, by others, from a lock file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.artifacts import contents, manifest
from tests.end_to_end.models import ENVIRONMENT, autotune, cnn, command, refused, transformer

MODELS: dict[str, Callable[[Path], Path]] = {"convolutional": cnn, "transformer": transformer}


class Made:
    """A model with a database and an artifact, in a folder."""

    def __init__(self, folder: Path, make: Callable[[Path], Path]) -> None:
        self.model = make(folder / "model.onnx")
        self.database = folder / "tuning.db"
        self.artifact = folder / "artifact"
        self.lock = folder / "model.lock.json"
        tuned = ("--trials", 24, "--threads", 2, "--sampler", "random", "--db", self.database)
        autotune("tune", self.model, *tuned, "--output", self.artifact)


only_convolutional = pytest.mark.parametrize("made", ["convolutional"], indirect=True)


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp(request.param), MODELS[request.param])


def another_user() -> int | None:
    """The id of a user that is not this one and can run the program; None where there is none."""
    if os.getuid() != 0:
        return None
    nobody = 65534
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import autotune.api"],
            user=nobody, cwd="/", env=ENVIRONMENT, capture_output=True,
        )  # fmt: skip
    except PermissionError:  # Python itself is in somebody's home
        return None
    return nobody if done.returncode == 0 else None


def test_two_builds_in_other_places_by_other_users_are_the_same_bytes(made: Made) -> None:
    digests = []
    user = another_user()
    for name, owner, zone in (("here", None, "UTC"), ("there/far/away", user, "Asia/Tokyo")):
        with tempfile.TemporaryDirectory() as root:
            place = Path(root) / name
            place.mkdir(parents=True)
            shutil.copy(made.model, place / "model.onnx")
            shutil.copy(made.database, place / "the.db")
            for path in (Path(root), *Path(root).rglob("*")):
                path.chmod(0o777)
            options = ("--threads", 2, "--db", "the.db", "--output", "out")
            changed = {"HOME": str(place), "TMPDIR": str(place), "TZ": zone}
            done = subprocess.run(
                command("compile", "model.onnx", *options),
                env=ENVIRONMENT | changed | {"PYTHONHASHSEED": str(len(name))},
                cwd=place, user=owner, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            digests.append(contents(place / "out"))
    assert digests[0] == digests[1] == contents(made.artifact)


@only_convolutional
def test_reproduce_proves_it_and_names_the_records(made: Made) -> None:
    tasks = manifest(made.artifact)["tasks"]
    tuned = [task for task in tasks if task["source"] == "record"]
    assert tuned
    for task in tuned:
        assert task["candidate"] and task["run"] and task["time"] and task["seconds"] > 0
    proof = ("reproduce", made.artifact, "--model", made.model)
    done = autotune(*proof, "--db", made.database)
    assert manifest(made.artifact)["files"]["lib.so"]["sha256"] in done.stdout


@only_convolutional
def test_better_records_that_came_later_do_not_matter(made: Made, tmp_path: Path) -> None:
    database = Path(shutil.copy(made.database, tmp_path / "tuning.db"))
    before = autotune("db", "best", "--db", database, "--json").stdout
    options = ("--threads", 2, "--sampler", "random", "--seed", 9, "--db", database)
    autotune("tune", made.model, "--trials", 60, *options)
    assert autotune("db", "best", "--db", database, "--json").stdout != before
    autotune("reproduce", made.artifact, "--model", made.model, "--db", database)


@only_convolutional
def test_a_lock_file_takes_the_place_of_the_database(made: Made, tmp_path: Path) -> None:
    words = ("lock", made.model, "--threads", 2, "--db", made.database, "--output")
    autotune(*words, made.lock)
    autotune(*words, tmp_path / "again.json")
    assert made.lock.read_bytes() == (tmp_path / "again.json").read_bytes()
    # It says the target as well, threads included.
    autotune("compile", made.model, "--lock", made.lock, "--output", tmp_path / "artifact")
    assert contents(tmp_path / "artifact") == contents(made.artifact)
    proof = ("reproduce", made.artifact, "--model", made.model, "--lock", made.lock)
    assert json.loads(autotune(*proof, "--json").stdout)["same"]
    steps = [line for line in made.lock.read_text().splitlines() if '\\"GetLoops\\"' in line]
    assert steps and all(line.count('\\"GetLoops\\"') == 1 for line in steps)


@only_convolutional
def test_what_differs_first_is_named(made: Made, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made.artifact, tmp_path / "artifact"))
    library = bytearray((copy / "lib.so").read_bytes())
    library[1234] ^= 1
    (copy / "lib.so").write_bytes(library)
    proof = ("reproduce", copy, "--model", made.model, "--db", made.database)
    done = autotune(*proof, check=False)
    assert done.returncode == 1
    assert "lib.so differs from byte 1234 on" in done.stdout
    content = manifest(copy)
    content["versions"]["tvm"] = "0.1"
    content["files"]["lib.so"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(content))
    done = autotune(*proof, check=False)
    assert done.returncode == 1
    assert "versions.tvm is '0.1' in the artifact" in done.stdout.splitlines()[0]


@only_convolutional
def test_wrong_use_is_a_sentence(made: Made, tmp_path: Path) -> None:
    other = cnn(tmp_path / "other.onnx", (1, 3, 20, 20))
    proof = ("reproduce", made.artifact, "--model")
    compiling = ("compile", made.model, "--output", tmp_path / "out")
    (tmp_path / "torn.json").write_text('{"format": "autotune-lock"')
    autotune("lock", made.model, "--threads", 2, "--db", made.database, "--output", made.lock)
    for words, part in (
        ((*proof, made.model), "--db"),
        ((*proof, other, "--db", made.database), "was not made from"),
        ((*proof, made.model, "--lock", tmp_path / "torn.json"), "not a lock file"),
        ((*compiling, "--lock", tmp_path / "no.json"), "cannot be read"),
        ((*compiling, "--lock", made.lock, "--db", made.database), "one of them"),
        ((*compiling, "--lock", made.lock, "--threads", 1), "threads"),
        ((*compiling, "--lock", made.lock, "--target", "aarch64"), "aarch64"),
    ):
        assert part in refused(*words), words
    assert not (tmp_path / "out").exists()
