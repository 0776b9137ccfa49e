"""What a report is made of: facts, gathered once, and sections that show them. A plugin point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from search_spaces.plugins import Kind, made

if TYPE_CHECKING:
    from markupsafe import Markup

    from autotune.bench import BenchResult
    from autotune.profile import Profile
    from autotune.report.history import History


@dataclass(frozen=True)
class Facts:
    """All that sections may show.

    ``memory`` is the bytes that loading and calling the artifact add to a process at their peak.
    ``bench`` is None where there was nothing to compare with, ``before`` (the profile of the same
    model with default schedules) where the model was not given, ``history`` where no database was.
    """

    artifact: Path
    manifest: Mapping[str, Any]
    profile: Profile
    memory: float
    size: int
    bench: BenchResult | None = None
    before: Profile | None = None
    history: History | None = None
    model: Path | None = None
    database: Path | None = None


class ReportSection(ABC):
    """A part of the page. ``name`` is its entry point's; ``title`` is shown above it."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def html(self, facts: Facts) -> Markup | str:
        """The section's HTML, "" where it has nothing to show.

        A ``markupsafe.Markup`` is taken as it is, a plain text is escaped. No scripts, and nothing
        that has to be loaded from elsewhere: the page works without a network.
        """


KIND: Kind[ReportSection] = Kind(
    "report section",
    "autotune.report_sections",
    made(ReportSection),  # type: ignore[type-abstract]
)
