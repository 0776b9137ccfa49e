"""Where an artifact is written: beside its place first, then all at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotune.errors import ArtifactError
from autotune.runtime import MANIFEST


def check_output(output: str | Path) -> Path:
    """Refuse a place that no artifact can be written to, before any work is done for it.

    An artifact that is there will be replaced; anything else will not. Raises ``ArtifactError``.
    """
    path = Path(output)
    check_replaceable(path)
    with _explained(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Creating something is the only sure test: permissions do not tell of read-only disks.
        os.rmdir(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    return path


def check_replaceable(path: Path) -> None:
    """Refuse a place that holds anything but an artifact; changes nothing.

    Raises ``ArtifactError``.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file() and any(path.iterdir()):
            raise ArtifactError(
                f"{path} holds something that is not an artifact: name another directory"
            )
    elif path.exists() or path.is_symlink():
        raise ArtifactError(f"{path} is a file: name a directory for the artifact")


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A fresh directory beside ``output``, which takes its place if the block succeeds."""
    check_output(output)
    target = output.absolute()
    with _explained(output):
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with _explained(output):
            yield draft
            # mkdtemp makes it ours alone; an artifact is for others to read.
            draft.chmod(0o777 & ~_umask())
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
                target.rename(old / "artifact")
                draft.rename(target)
                shutil.rmtree(old)
            else:
                draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(
            f"the artifact cannot be written to {path} ({reason}): name another directory"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
