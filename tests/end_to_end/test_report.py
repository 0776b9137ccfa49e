"""`autotune report` on a small model, and the page in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.models import autotune, layers

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
SECTIONS = ("summary", "roofline", "kernels", "tuning", "choices", "failures", "environment")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    layers(folder / "layers.onnx")
    words = ("--threads", 2, "--trials", 12, "--db", "t.db", "--output", "tuned")
    autotune("tune", "layers.onnx", *words, folder=folder)
    words = ("--model", "layers.onnx", "--db", "t.db", "--time", "3s", "--output", "all.html")
    done = autotune("report", "tuned", *words, folder=folder)
    assert done.stdout == "all.html\n" and "fails" not in done.stderr, done.stderr
    return folder


def test_the_page_shows_peers_tuning_and_what_was_chosen(folder: Path) -> None:
    html = (folder / "all.html").read_text(encoding="utf-8")
    assert tuple(re.findall(r'<section id="([^"]+)"', html)) == SECTIONS
    assert "onnxruntime" in html and "candidates were measured" in html
    assert 'class="bar was"' in html  # the kernels of the default schedules
    assert "autotune reproduce tuned --model layers.onnx --db t.db" in html
    assert len(html) < 2_000_000


def test_an_artifact_alone_is_enough(folder: Path) -> None:
    autotune("report", "tuned", "--time", "1s", "--output", "alone.html", folder=folder)
    html = (folder / "alone.html").read_text(encoding="utf-8")
    found = re.findall(r'<section id="([^"]+)"', html)
    assert found == [name for name in SECTIONS if name not in ("tuning", "failures")]


def test_what_is_missing_is_said_before_anything_is_measured(folder: Path) -> None:
    done = autotune("report", "tuned", "--db", "none.db", folder=folder, check=False)
    assert done.returncode == 2 and "there is no tuning database at none.db" in done.stderr
    assert not (folder / "none.db").exists() and not (folder / "report.html").exists()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_an_error(folder: Path, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: Debian's package chromium")
    picture = tmp_path / "page.png"
    command = [browser, *QUIET, f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--v=0",
               f"--window-size={width},2000", f"--screenshot={picture}"]  # fmt: skip
    page = (folder / "all.html").as_uri()
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=120)
    assert picture.stat().st_size > 10_000, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    dumped = subprocess.run(
        [browser, *QUIET, f"--user-data-dir={tmp_path / 'dom'}", "--dump-dom", page],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert all(f'<section id="{name}"' in dumped.stdout for name in SECTIONS)
