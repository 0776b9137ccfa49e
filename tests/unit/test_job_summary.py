"""What a job knows of its earlier runs, and what others see of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autotune.errors import InputError
from autotune.jobs.file import read_job
from autotune.jobs.job import Job
from autotune.jobs.run import LEAST_SECONDS, _order, done_before, entries_of
from autotune.jobs.status import job_plan, job_status
from autotune.jobs.summary import (
    SUMMARY,
    Entry,
    JobSummary,
    read_summary,
    running,
    sole_run,
    write_summary,
)

TEXT = """\
{top}
[[models]]
path = "a.model"
input.x = [1, 2]
[[targets]]
name = "here"
threads = 1
"""


def job(folder: Path, top: str = 'time = "10m"', weights: str = "weights") -> Job:
    (folder / "a.model").write_text(weights)
    (folder / "jobs.toml").write_text(TEXT.format(top=top))
    return read_job(folder / "jobs.toml")


def left_behind(made: Job, **changes: object) -> Entry:
    """An entry of ``made`` in the summary that an earlier run has written."""
    (entry,) = entries_of(made)
    entry = entry.model_copy(update={"state": "done", "spent": 200.0, "trials": 50, **changes})
    made.output.mkdir(exist_ok=True)
    summary = JobSummary(
        job=str(made.path), database=str(made.database), output=str(made.output), entries=[entry]
    )
    write_summary(made.output, summary)
    return entry


def compiled(made: Job) -> None:
    made.pairs[0].artifact.mkdir(parents=True)
    (made.pairs[0].artifact / "manifest.json").write_text("{}")


def seconds(made: Job) -> float:
    """What a run of ``made`` would let its search take."""
    (entry,) = entries_of(made)
    found: float = _order(made, made.pairs[0], entry.spent)["tune"]["seconds"]
    return found


def test_what_was_done_is_done_as_long_as_it_is_what_is_asked_for(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert left_behind(made) == entries_of(made)[0]
    assert not done_before(made.pairs[0], entries_of(made)[0]), "its artifact is missing"
    compiled(made)
    assert done_before(made.pairs[0], entries_of(made)[0])
    for changed in (job(tmp_path, 'time = "20m"'), job(tmp_path, 'time = "10m"\nseed = 1')):
        assert not done_before(changed.pairs[0], entries_of(changed)[0])
    other = job(tmp_path, weights="other weights of the same file")
    assert not done_before(other.pairs[0], entries_of(other)[0])


def test_what_was_begun_goes_on_with_what_is_left_of_its_time(tmp_path: Path) -> None:
    left_behind(job(tmp_path), state="at work", spent=200.0)
    assert seconds(job(tmp_path)) == 400.0
    assert seconds(job(tmp_path, 'time = "1h"')) == 3400.0, "a larger budget counts what was spent"
    assert seconds(job(tmp_path, 'time = "3m"')) == LEAST_SECONDS
    assert seconds(job(tmp_path, 'time = "10m"\nseed = 1')) == 600.0, "that is another search"
    assert seconds(job(tmp_path, weights="other weights")) == 600.0


@pytest.mark.parametrize("content", ["", "{}", '{"entries": 1}', "no JSON"])
def test_a_summary_of_something_else_is_none(tmp_path: Path, content: str) -> None:
    made = job(tmp_path)
    left_behind(made)
    (made.output / SUMMARY).write_text(content)
    assert read_summary(made.output) is None
    assert entries_of(made)[0].state == "waiting"


def test_a_job_runs_once_at_a_time_and_its_process_is_seen(tmp_path: Path) -> None:
    made = job(tmp_path)
    left_behind(made, state="at work")
    code = (
        "import sys, pathlib, autotune.jobs.summary as s\n"
        "with s.sole_run(pathlib.Path(sys.argv[1])):\n"
        "    print('holds', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(made.output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    assert running(made.output) == holder.pid
    found = job_status(made.path)
    assert (found.process, found.entries[0].state) == (holder.pid, "at work")
    refused = pytest.raises(InputError, match=f"process {holder.pid} runs this job already")
    with refused, sole_run(made.output):
        raise AssertionError("it runs twice")
    holder.kill()
    holder.communicate()
    found = job_status(made.path)
    assert (found.process, found.entries[0].state) == (None, "interrupted")
    with sole_run(made.output):
        assert running(made.output) is not None
    assert running(made.output) is None


def test_status_tells_what_is_asked_for_now(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert [entry.state for entry in job_status(made.path).entries] == ["waiting"]
    left_behind(made)
    assert [entry.state for entry in job_status(made.path).entries] == ["done"]
    job(tmp_path, 'time = "20m"')
    assert [entry.state for entry in job_status(made.path).entries] == ["waiting"]


def test_a_plan_says_what_is_left(tmp_path: Path) -> None:
    made = job(tmp_path)
    left_behind(made, state="interrupted")
    (step,) = job_plan(made.path)
    assert (step.done, step.seconds) == (False, 400.0)
    (step,) = job_plan(job(tmp_path, "trials = 90").path)
    assert step.seconds == 10.0, "40 of 90 trials, four a second"
    assert job_plan(job(tmp_path, "seed = 0").path)[0].seconds is None
    made = job(tmp_path)
    left_behind(made)
    compiled(made)
    assert job_plan(made.path)[0].done
    assert not made.database.exists(), "a plan makes nothing"
