"""Files that appear under their name only when they are complete, and where to keep some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autotune.errors import InputError


def user_cache(name: str) -> Path:
    """A folder for what can be made again: below ``$XDG_CACHE_HOME``, or else ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "autotune" / name


def check_place(path: Path) -> None:
    """Raise ``InputError`` where ``path`` cannot be a file: said before long work, not after it."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: name a file in a directory that exists")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` when the block succeeds.

    Raises ``InputError`` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
