"""`autotune run`: one inference of an artifact, from files to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli import parsing
from autotune.cli.options import ArtifactArgument, ThreadsOption
from autotune.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def run(
    artifact: ArtifactArgument,
    output: Annotated[Path, typer.Option(help="The .npz file for the outputs, by name.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", metavar="NAME=file.npy", help="An input array; once for each."),
    ],
    threads: ThreadsOption = None,
) -> None:
    """Run the artifact DIR once."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")  # no compiler: it starts in half the time
    from autotune.sized import load

    arrays = {name: _read(path) for name, path in parsing.files(inputs).items()}
    outputs = load(artifact, threads)(arrays)
    _write(output, outputs)
    for name, value in outputs.items():
        print(f"{name} {'x'.join(map(str, value.shape)) or 'scalar'} {value.dtype}")


def _read(path: Path) -> np.ndarray:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a .npy array: write it with numpy.save") from error


def _write(path: Path, outputs: dict[str, np.ndarray]) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.savez(file, **outputs)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
