"""What the command line does with good and bad words: exit codes, sentences, JSON."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune.cli import parsing
from autotune.cli.progress import PlainReporter, clock, describe, reporter
from autotune.errors import InputError
from autotune.search.progress import Progress

ROOT = Path(__file__).resolve().parents[2]


def autotune(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autotune.cli.main", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
    )


def test_help_names_every_command() -> None:
    done = autotune("--help")
    assert done.returncode == 0
    for command in ("tune", "compile", "run", "bench", "db", "target", "plugins"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["tune", "missing.onnx"],
        ["tune", "missing.onnx", "--time", "soon"],
        ["tune", "missing.onnx", "--input", "1,3"],
        ["tune", "missing.onnx", "--sampler", "oracle"],
        ["tune", "missing.onnx", "--trials", "0"],
        ["tune", "missing.onnx", "--output", "taken"],
        ["compile", "missing.onnx", "--output", "out"],
        ["compile", "missing.onnx", "--db", "missing.db", "--output", "out"],
        ["run", ".", "--input", "x=missing.npy", "--output", "out.npz"],
        ["bench", "."],
        ["bench", ".", "--csv", "."],
        ["frobnicate"],
    ],
    ids=lambda words: " ".join(words),
)
def test_bad_words_exit_with_2_and_leave_nothing_behind(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = autotune(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", ".", "--against", "openvino"], "--against needs the original model"),
        (["profile", ".", "--time", "0s"], "leaves no time to measure"),
        (["profile", ".", "--trace", "nowhere/t.json"], "name a file in a directory that exists"),
        (["report", ".", "--output", "nowhere/r.html"], "name a file in a directory that exists"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    words: list[str], told: str, tmp_path: Path
) -> None:
    done = autotune(*words, cwd=tmp_path)
    assert done.returncode == 2 and told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "notes.db"
    database.write_text("these are my notes, and no database at all\n" * 50)
    before = database.read_bytes()
    done = autotune("tune", "missing.onnx", "--db", "notes.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "notes.db" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert database.read_bytes() == before


def test_target_show_prints_a_target_that_can_be_read_again(tmp_path: Path) -> None:
    shown = autotune("target", "show", "x86-64-v3", "--threads", "3", "--json")
    assert shown.returncode == 0, shown.stderr
    file = tmp_path / "mine.json"
    file.write_text(shown.stdout)
    again = autotune("target", "show", str(file), "--json")
    assert json.loads(again.stdout) == json.loads(shown.stdout)
    assert json.loads(again.stdout)["threads"] == 3


def test_interrupt_is_answered_while_native_code_is_busy() -> None:
    # time.sleep in a loop that swallows KeyboardInterrupt stands for a compiler pass that Python
    # cannot break into.
    code = (
        "import time\n"
        "from autotune.cli.interrupt import prompt_exit\n"
        "with prompt_exit('what is kept'):\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "what is kept\n"


def test_an_interrupt_inside_tvm_does_not_become_an_error_of_what_was_tried() -> None:
    # What TVM calls back has frames of TVM below it, and TVM makes a RuntimeError of whatever is
    # raised there.
    code = (
        "import time\n"
        "from autotune.cli.interrupt import Interruption, prompt_exit\n"
        "tvm = {'__name__': 'tvm.ir.transform'}\n"
        "exec('def run(work):\\n'\n"
        "     '    try: work()\\n'\n"
        "     '    except BaseException: raise RuntimeError', tvm)\n"
        "def work():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(0.8)\n"
        "    print('done', flush=True)\n"
        "def main(interruption):\n"
        "    try:\n"
        "        tvm['run'](work)\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        print(interruption.came, flush=True)\n"
        "interruption = Interruption()\n"
        "with prompt_exit('too late', interruption):\n"
        "    main(interruption)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert said == "done\nTrue\n"
    assert process.returncode == 0


def test_durations_and_shapes() -> None:
    assert [parsing.duration(t) for t in ("90", "90s", "10m", "1h30m", "0.5m", None)] == [
        90.0, 90.0, 600.0, 5400.0, 30.0, None,
    ]  # fmt: skip
    assert parsing.shapes(["x=1,3,48", "a=b=2", "s="]) == {"x": (1, 3, 48), "a=b": (2,), "s": ()}
    for bad in ("x", "=1", "x=1,a", "x=-1"):
        with pytest.raises(InputError):
            parsing.shapes([bad])
    with pytest.raises(InputError, match="twice"):
        parsing.shapes(["x=1", "x=2"])


def test_several_sizes_are_taken_together():
    assert parsing.sizes([]) == [{}]
    assert parsing.sizes(["x=1,3"]) == [{"x": (1, 3)}]
    assert parsing.sizes(["ids=1/8,64/128", "mask=1/8,64/128", "s="]) == [
        {"ids": (1, 64), "mask": (1, 64), "s": ()},
        {"ids": (8, 128), "mask": (8, 128), "s": ()},
    ]
    for bad in (["x=1/2,3/4/5"], ["x=1/2", "y=1/2/3"], ["x=1/,3"], ["x=1/2", "x=1/2"]):
        with pytest.raises(InputError):
            parsing.sizes(bad)


def state(**changes: object) -> Progress:
    values: dict[str, object] = {
        "stage": "search",
        "task": "conv2d",
        "done": 12,
        "total": 64,
        "elapsed": 6.0,
        "left": 26.0,
        "rate": 2.0,
        "latency": 0.002,
        "baseline": 0.003,
        "tasks_measured": 4,
        "tasks": 9,
        "failures": {"timed_out": 1},
    }
    return Progress(**{**values, **changes})  # type: ignore[arg-type]


def test_progress_tells_trials_gain_failures_and_time_left() -> None:
    line = describe(state())
    for part in (
        "12 of 64 trials", "2.0 a second", "1.50x", "4 of 9 tasks", "1 failed (1 timed out)",
        "26s left",
    ):  # fmt: skip
        assert part in line
    assert "~2 ms" in line and "(~3 ms)" in line  # five tasks count by an estimate
    whole = describe(state(tasks_measured=9, timed=0.0025))
    assert "~" not in whole and "begun" not in whole and "2.5 ms when it was last timed" in whole
    assert "ms" not in describe(state(latency=0.0, baseline=0.0))
    assert "left" not in describe(state(left=None))
    assert describe(state(done=1, total=None)).startswith("1 trial, ")
    assert "a second" not in describe(state(stage="finals"))
    assert (clock(45), clock(200), clock(3900)) == ("45s", "3m20s", "1h05m")


def test_plain_progress_does_not_flood(capsys: pytest.CaptureFixture[str]) -> None:
    told = PlainReporter()
    for done in range(1, 64):
        told.progress(state(done=done))
    told.progress(state(done=64))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[-1].startswith("64 of 64 trials")


def test_a_quiet_command_tells_nothing_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        with reporter(quiet) as told:
            told.status("importing")
            told.progress(state())
        assert bool(capsys.readouterr().err) is not quiet


def test_live_progress_names_the_task_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with reporter() as told:
        told.status("importing [a] model")
        told.progress(state(task="conv [3x3]"))
    assert "importing [a] model" in screen.getvalue()
    assert "12 of 64 trials" in screen.getvalue() and "at conv [3x3]" in screen.getvalue()
