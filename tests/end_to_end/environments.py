"""Environments in which tests install packages, offline, and take them away again."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Environment:
    """A virtual environment that sees everything that is installed where the tests run.

    What is installed there touches nothing else. ``variables`` is the environment of processes.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "lib" / version / "site-packages"
        # As a site, and not as a path: editable installs are found by files that only a site reads.
        around = sysconfig.get_path("purelib")
        (site / "around.pth").write_text(f"import site; site.addsitedir({around!r})\n")
        for name, module in (("autotune", "autotune.cli.main"), ("pip", "pip")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{self.python}" -P -m {module} "$@"\n')
            program.chmod(0o755)
        # Programs of other packages come from the environment that runs the tests.
        places = (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
        self.variables = {
            **os.environ,
            "PATH": os.pathsep.join(places),
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which means: without isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, *words: Any, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of it to its end; it must exit with 0."""
        done = subprocess.run(
            list(map(str, words)),
            capture_output=True,
            text=True,
            cwd=folder,
            env=self.variables,
            timeout=280,
        )
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}\n{done.stdout}"
        return done
