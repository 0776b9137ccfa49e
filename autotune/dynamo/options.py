"""What ``torch.compile(model, backend="autotune", options={...})`` may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autotune.errors import InputError


@dataclass(frozen=True)
class Options:
    """``database`` holds the schedules; what it does not hold is compiled from defaults.

    With ``trials`` or ``seconds`` each graph is tuned into it first, for so many candidates or so
    long. ``target`` and ``threads`` as for ``autotune.tune``. ``specialisations`` is how many
    shapes, or sets of weights, one graph is compiled for before others are left to eager PyTorch.
    """

    database: str | Path | None = None
    trials: int | None = None
    seconds: float | None = None
    target: str = "native"
    threads: int | None = None
    specialisations: int = 16

    @property
    def tunes(self) -> bool:
        """Whether graphs are searched before they are compiled."""
        return self.trials is not None or self.seconds is not None

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> Options:
        """Options from a mapping. Raises ``InputError`` for names and values that are none."""
        from autotune.database import open_database

        names = [field.name for field in fields(cls)]
        unknown = sorted(set(given or {}) - set(names))
        if unknown:
            raise InputError(
                f"the backend has no option {', '.join(unknown)}: there are {', '.join(names)}"
            )
        made = cls(**(given or {}))
        if made.tunes and made.database is None:
            raise InputError("trials and seconds need a database to keep what is measured in")
        if made.specialisations < 1:
            raise InputError(f"specialisations must be 1 or more, not {made.specialisations}")
        if made.database is not None and not made.tunes:
            with open_database(made.database, create=False, read_only=True):
                pass
        return made
