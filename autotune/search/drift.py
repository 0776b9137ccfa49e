"""How disturbed the machine was while candidates were measured."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from tuning_db.drift import DISTURBED, undisturbed


@dataclass(frozen=True)
class Drift:
    """Of ``measured`` candidates ``disturbed`` ones were measured on a slowed machine.

    ``worst`` is how many times slower a fixed kernel was than undisturbed, at the worst.
    """

    measured: int
    disturbed: int
    worst: float

    @property
    def warning(self) -> str:
        """One sentence for people; empty where nothing was disturbed."""
        if not self.disturbed:
            return ""
        return (
            f"The machine was disturbed during {self.disturbed} of {self.measured} measurements "
            f"(up to {self.worst:.1f} times slower): `autotune db verify` repeats those."
        )


class DriftLog:
    """What the fixed kernel took, in earlier runs and in this one."""

    def __init__(self, earlier: Iterable[float] = ()) -> None:
        self._ordered = sorted(earlier)
        self._seen: list[float] = []

    def note(self, seconds: float | None) -> float | None:
        """Take one more time and return the drift: how many times slower than undisturbed."""
        if seconds is None or seconds <= 0:
            return None
        bisect.insort(self._ordered, seconds)
        self._seen.append(seconds)
        return seconds / undisturbed(self._ordered)

    @property
    def drift(self) -> Drift:
        """This run so far, by all that is known by now."""
        if not self._seen:
            return Drift(0, 0, 1.0)
        base = undisturbed(self._ordered)
        ratios = [seconds / base for seconds in self._seen]
        return Drift(len(ratios), sum(ratio > DISTURBED for ratio in ratios), max(ratios))
