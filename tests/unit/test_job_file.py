"""All faults of a job file at once, each with its line and key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.jobs.file import JobFileError, read_job, read_table
from autotune.jobs.toml import read_toml

GOOD = """\
trials = 100
time = "1h30m"
db = "records.db"

[[models]]
path = "a.onnx"
input.x = [1, 3,
  48, 192]

[[models]]
name = "b"
path = "nets/a.onnx"
trials = 5
targets = ["one"]

[[targets]]
name = "one"
target = "x86-64"
threads = 1

[[targets]]
name = "board"
rpc = "localhost:9190"
key = "rk3588"
rpc-wait = 5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets").mkdir()
    for name in ("a.onnx", "nets/a.onnx"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def faults(folder: Path, text: str) -> list[tuple[int, str, str]]:
    """Line, key and sentence of each fault."""
    file = folder / "jobs.toml"
    file.write_text(text)
    before = sorted(folder.rglob("*"))
    with pytest.raises(JobFileError) as caught:
        read_job(file)
    assert sorted(folder.rglob("*")) == before, "a check changes nothing"
    for fault in caught.value.faults:
        assert f"line {fault.line}: " in str(caught.value)
    return [(fault.line, fault.key, fault.text) for fault in caught.value.faults]


def test_a_job_is_every_model_for_every_target(folder: Path) -> None:
    file = folder / "jobs.toml"
    file.write_text(GOOD)
    job = read_job(file)
    assert [pair.name for pair in job.pairs] == ["a on one", "a on board", "b on one"]
    one, board, other = job.pairs
    assert (one.shapes, other.shapes) == ({"x": (1, 3, 48, 192)}, {})
    assert (one.options.trials, one.options.time) == (100, 5400.0)
    assert (other.options.trials, other.options.time) == (5, 5400.0)
    assert (one.target.threads, one.device) == (1, None)
    assert board.device is not None and board.target.device == board.device.key == "rk3588"
    assert (job.database, job.output) == (folder / "records.db", folder / "tuned")
    assert len({pair.artifact for pair in job.pairs}) == 3


def test_every_fault_is_told_at_once_with_line_and_key(folder: Path) -> None:
    found = faults(
        folder,
        """\
trails = 12
time = "10 years"
seed = 1
seed = 2
cores = = 3
[[models]]
path = "missing.onnx"
[[models]]
path = "a.onnx"
trials = 0
targets = ["onne"]
[[models]]
path = "nets/a.onnx"
graph = "yes"
input.x = [1, "three"]
[[targets]]
name = "one"
threads = 4096
[[targets]]
name = "arm"
target = "aarch64"
[[targets]]
name = "board"
rpc = "nowhere"
cores = 2
[[targets]]
name = "board"
sampler = "tpe"
""",
    )
    wanted = [
        (1, "trails", "did you mean trials?"),
        (2, "time", "write it as 90s, 10m or 1h30m"),
        (4, "seed", "there already, in line 3"),
        (5, "", "no TOML"),
        (7, "[[models]] path", "missing.onnx is not there"),
        (10, "[[models]] trials", "greater than or equal to 1, not 0"),
        (11, "[[models]] targets", "there is no target onne: did you mean one?"),
        (12, "[[models]] name", "the name of the one in line 8, too"),
        (14, "[[models]] graph", "boolean, not 'yes'"),
        (15, "[[models]] input.x", "integer, not 'three'"),
        (18, "[[targets]] threads", "4096 threads cannot be measured"),
        (21, "[[targets]] target", "on aarch64"),
        (22, "[[targets]] key", "its tracker's"),
        (24, "[[targets]] rpc", "HOST:PORT"),
        (25, "[[targets]] cores", "about this machine"),
        (28, "[[targets]] sampler", "there is no such key"),
    ]
    for line, key, text in wanted:
        assert any((f[0], f[1]) == (line, key) and text in f[2] for f in found), (line, key, found)
    assert len(found) == len(wanted), found


def test_a_budget_of_accuracy_is_checked_before_anything_is_begun(folder: Path) -> None:
    (folder / "s.npz").write_bytes(b"")
    file = folder / "jobs.toml"
    file.write_text(
        """\
accuracy-budget = "cosine:0.99"
calibration = "s.npz"
precisions = ["bfloat16"]
[[models]]
path = "a.onnx"
"""
    )
    (pair,) = read_job(file).pairs
    assert pair.options.accuracy_budget == "cosine:0.99" and pair.calibration == folder / "s.npz"
    before = pair.asked()
    (folder / "s.npz").write_bytes(b"other samples")
    assert pair.asked() != before
    found = faults(
        folder,
        """\
calibration = "none.npz"
[[models]]
path = "a.onnx"
accuracy-budget = "rather little"
precisions = ["int4"]
[[models]]
name = "other"
path = "a.onnx"
""",
    )
    wanted = [
        (4, "[[models]] accuracy-budget", "no accuracy budget"),
        (5, "[[models]] precisions", "int4"),
    ]
    for line, key, text in wanted:
        assert any(f[0] == line and f[1].startswith(key) and text in f[2] for f in found), found
    found = faults(folder, 'calibration = "none.npz"\n[[models]]\npath = "a.onnx"\n')
    assert [f[1] for f in found] == ["calibration", "calibration"]


def test_what_fits_no_device_and_no_place_is_told_too(folder: Path) -> None:
    (folder / "notes").write_text("mine")
    found = faults(
        folder,
        """\
graph = true
db = "notes"
output = "notes"
[[models]]
path = "a.onnx"
until = "onnxruntime"
targets = ["board", "boars"]
[[targets]]
name = "board"
rpc = "localhost:9190"
key = "rk3588"
""",
    )
    assert [(line, key) for line, key, _ in found] == [
        (1, "graph"),
        (2, "db"),
        (3, "output"),
        (6, "[[models]] until"),
        (7, "[[models]] targets"),
    ]
    assert "did you mean board?" in found[-1][2]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("", 1, "models"),
        ("models = []", 1, "models"),
        ("\n[models]\npath = 'a.onnx'", 2, "models"),
        ("[[models]]\nname = 'a'", 1, "[[models]] path"),
        ("[[models]]\npath = 'a.onnx'\nname = '../a'", 3, "[[models]] name"),
        ("[[models]]\npath = 'nets'", 2, "[[models]] path"),
        ("until = '2.5 parsec'\n[[models]]\npath = 'a.onnx'", 1, "until"),
        ("sampler = 'best'\n[[models]]\npath = 'a.onnx'", 1, "sampler"),
        ("time = '0s'\n[[models]]\npath = 'a.onnx'", 1, "time"),
        ("time = true\n[[models]]\npath = 'a.onnx'", 1, "time"),
        ("[[models]]\npath = 'a.onnx'\n[[targets]]\nname='b'\nkey='c'", 5, "[[targets]] key"),
        ("[[models]]\npath = 'a.onnx'\n[[targets]]\nname='b'\ntarget='no.json'", 5,
         "[[targets]] target"),
    ],
)  # fmt: skip
def test_each_fault_has_its_place(folder: Path, text: str, line: int, key: str) -> None:
    ((found_line, found_key, _),) = faults(folder, text)
    assert (found_line, found_key) == (line, key)


def test_no_file_and_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_job(tmp_path / "missing.toml")
    (tmp_path / "jobs.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(tmp_path / "jobs.toml")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        'a = """\n[no.header]\nb = 1\n"""\n[c.d]\n"e f".g = { h = [1] }\nc = [\n  # [x]\n]\n',
        "[[a]]\n[a.b]\nc = 1\n[[a.d]]\ne = 1\n[[a]]\nb.c = 2\r\n\r\n[f]",
    ],
)
def test_files_without_faults_are_read_as_tomllib_reads_them(text: str) -> None:
    document = read_toml(text)
    assert document.faults == []
    assert document.values == tomllib.loads(text)
    lines = text.replace("\r", "").split("\n")
    for where, line in document.lines.items():
        named = [part for part in where if isinstance(part, str)]
        assert any(name in lines[line - 1] for name in named), (where, line)


def test_what_follows_a_list_without_an_end_is_not_blamed() -> None:
    document = read_toml("a = 1\nb = [1,\n2\nc = 3\nd = = 4\n")
    assert [fault.line for fault in sorted(document.faults)] == [4, 5]
