"""From object files to a shared library, by whichever linker this machine has."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.errors import ArtifactError
from autotune.instructions import machine

COMPILERS = ("cc", "gcc", "clang", "g++", "clang++")


def linker(triple: str = "") -> list[str]:
    """The command that links code for ``triple`` (this machine's, where it is empty).

    ``CC``, a compiler on the path, or the one in the package ziglang. For another architecture
    ``CC`` counts only if its name has that in it. Raises ``ArtifactError`` where there is none.
    """
    here = machine()
    architecture = triple.split("-")[0] or here
    cross = architecture != here
    chosen = os.environ.get("CC", "")
    if chosen and (not cross or architecture in chosen):
        return shlex.split(chosen)
    names = [f"{architecture}-linux-gnu-{name}" for name in ("gcc", "g++")] if cross else COMPILERS
    for name in names:
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        aim = ["-target", f"{architecture}-linux-gnu"] if cross else []
        return [sys.executable, "-m", "ziglang", "cc", *aim]
    if cross:
        raise ArtifactError(
            f"there is no linker for {architecture} here: install gcc-{architecture}-linux-gnu, "
            "or run pip install ziglang"
        )
    raise ArtifactError(
        "there is no C compiler to link the artifact with: install gcc or clang, "
        "or run pip install ziglang"
    )


def link(output: str, objects: Sequence[str] | str, compiler: str = "", **_: object) -> None:
    """Link ``objects`` to the shared library ``output``; what ``export_library`` calls.

    ``compiler`` is the command of a cross compiler, where the library is not for this machine.
    Raises ``ArtifactError`` with the linker's last words. The bytes depend on the contents of the
    objects alone: links happen in their directory, under relative names.
    """
    names = [objects] if isinstance(objects, str) else list(objects)
    folder = Path(names[0]).parent
    command = [
        *(shlex.split(compiler) if compiler else linker()),
        "-shared",
        "-fPIC",
        # The library is data and leaf functions: start-up files would add the compiler's version.
        "-nostartfiles",
        # A build id and time stamps would tell two links apart.
        "-Wl,--build-id=none",
        "-o",
        str(Path(output).resolve()),
        *(os.path.relpath(name, folder) for name in names),
        "-lm",
    ]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ArtifactError(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        words = " ".join(done.stderr.split())[-500:]
        raise ArtifactError(f"linking the artifact with {command[0]} failed: {words}")
