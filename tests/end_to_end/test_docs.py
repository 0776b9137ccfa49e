"""What the documents show is what the program does: every command of them is run.

A ```console block holds commands (lines that begin with "$ ", continued by lines that begin with
"> ") and may show what they print; a block whose first line is "# NAME.py" or "# FOLDER/NAME.toml"
is a file that later commands use. All run in one directory, README first, with the search's time
cut short, in an environment of their own: what they install is gone with it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.environments import Environment

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BUDGETS = {
    r"--time 2m\b": "--time 3s",
    r"--time 10s\b": "--time 1s",
    r'^time = "2m"': 'time = "3s"',
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of ``language``, in order."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def steps(document: Path) -> Iterator[tuple[str, str]]:
    """("file", text) and ("run", command), in the order of the document."""
    for language, text in BLOCK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"# [\w/]+\.(py|toml)\n", text):
            yield "file", text
        elif language == "console":
            for command in re.findall(r"^\$ (.*(?:\n> .*)*)", text, re.MULTILINE):
                yield "run", command.replace("\n> ", "\n")


def needs_model() -> None:
    if importlib.util.find_spec("rapidocr_onnxruntime") is None:
        pytest.skip("the model of the tour is missing: pip install --no-deps rapidocr-onnxruntime")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs")


@pytest.mark.timeout(900)  # two minutes of one core, which others may share
def test_every_command_of_the_documents_works(directory: Path) -> None:
    needs_model()
    environment = Environment(directory / ".environment").variables | {"COLUMNS": "120"}
    run = 0
    for document in DOCUMENTS:
        if document.name == "torch.md" and importlib.util.find_spec("torch") is None:
            continue  # torch is an extra
        for kind, text in steps(document):
            for pattern, short in BUDGETS.items():
                text = re.sub(pattern, short, text, flags=re.MULTILINE)
            if kind == "file":
                name = text.split("\n", 1)[0].removeprefix("# ")
                (directory / name).parent.mkdir(exist_ok=True)
                (directory / name).write_text(text)
                continue
            done = subprocess.run(
                ["bash", "-c", text], cwd=directory, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{document.name}: {text}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr, f"{document.name}: {text}\n{done.stderr}"
            run += 1
    assert run >= 10
    manifest = (directory / "cls.tuned" / "manifest.json").read_text()
    assert '"source": "record"' in manifest, "the tour's search tuned nothing"
    assert (directory / "cls.tuned" / "lib.so").stat().st_size > 0


def test_long_searches_are_cut_short() -> None:
    """No command of the documents searches or measures for longer than the test means to."""
    for document in DOCUMENTS:
        for kind, text in steps(document):
            job = kind == "file" and "[[models]]" in text
            if job or (
                kind == "run" and re.search(r"autotune (tune|bench|check|profile|report)\b", text)
            ):
                assert any(re.search(p, text, re.MULTILINE) for p in BUDGETS), text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_of_the_documents_fits_the_functions(document: Path) -> None:
    import autotune

    for text in blocks(document, "python"):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "autotune":
                function = getattr(autotune, node.func.attr)
                names = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(function).bind(*node.args, **names)


def test_the_readme_names_every_command() -> None:
    from typer.main import get_command

    from autotune.cli.app import app

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in get_command(app).commands if f"autotune {name}" not in readme]  # type: ignore[attr-defined]
    assert not missing


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_package_of_the_plugin_page_is_the_example() -> None:
    shown = {
        Path(text.split("\n", 1)[0].removeprefix("# ")).name: text
        for kind, text in steps(ROOT / "docs" / "plugins.md")
        if kind == "file" and text.startswith("# my_kernels/")
    }
    files = {path.name: path for path in (ROOT / "examples" / "plugin_package").glob("*.*")}
    assert shown.keys() == files.keys()
    assert all(files[name].read_text(encoding="utf-8") == text for name, text in shown.items())


def test_the_readme_has_room_for_figures(tmp_path: Path) -> None:
    from benchmarks.latency_table import BEGIN, END

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
