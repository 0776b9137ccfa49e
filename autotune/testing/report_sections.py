"""The contract of a report section as a test suite: subclass it and give ``section``.

class TestMySection(ReportSectionTestCase):
    @pytest.fixture
    def section(self):
        return MySection()
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from autotune.profile.observe import Timeline
from autotune.profile.profile import KernelProfile, Profile
from autotune.profile.roofline import Roof
from autotune.report.base import Facts, ReportSection
from autotune.report.history import History

VOID = frozenset({"br", "hr", "img", "input", "line", "circle", "polyline", "path", "rect"})
HOSTILE = "<b onload=\"x('1')\">&amp;"
"""A name as a model file may hold it."""


def facts(model: str = "a model", kernel: str = "conv2d_add_relu") -> Facts:
    """Facts of a made-up artifact, without a database, a model or peers."""
    roof = Roof({"float32": 1e11}, ((1 << 18, 1e11), (1 << 28, 2e10)), 4e-6)
    entry = KernelProfile(
        name=kernel,
        arguments=("1x8x8x16 float32", "1x8x8x32 float32"),
        functions=("fused_conv2d_add_relu",),
        workload="0" * 32,
        calls=2,
        seconds=2e-4,
        low=1.9e-4,
        high=2.2e-4,
        share=0.8,
        flops=4e6,
        bytes=200_000,
        roof=0.2,
        verdict="compute",
        schedule="cpu.tiled",
        origin="record",
        operators=((kernel, "relu"), ("conv.2",)),
    )
    other = replace(entry, name="softmax", workload="1" * 32, flops=0.0, roof=None)
    seen = Timeline(("fused_conv2d_add_relu",), np.zeros((1, 1)), np.ones((1, 1)), np.ones(1), 1e-6)
    entries = (entry, other)
    profile = Profile(
        model,
        "A CPU",
        2,
        2.5e-4,
        2.4e-4,
        2.6e-4,
        2.2e-4,
        1e-5,
        2e-5,
        1e-6,
        roof,
        entries,
        seen,
    )
    task = {
        "workload": "0" * 32,
        "name": kernel,
        "calls": 2,
        "source": "record",
        "space": "cpu.tiled",
        "parameters": {"rows": 4},
        "note": "",
        "arguments": list(entry.arguments),
    }
    manifest = {
        "model": {"name": model, "digest": "d" * 64},
        "target": {
            "model": "A CPU",
            "cpu": "znver3",
            "triple": "x86_64-linux-gnu",
            "features": ["+avx2"],
            "cores": 2,
            "threads": 2,
            "l1": 32768,
            "l2": 524288,
            "l3": 0,
        },
        "graph": {"spaces": {"graph.norms": {"version": 1, "parameters": {"norm 1": True}}}},
        "versions": {"tvm": "0.27"},
        "tasks": [task],
        "files": {"lib.so": {"sha256": "e" * 64, "bytes": 1000}},
        "notes": [],
    }
    return Facts(Path("model.tuned"), manifest, profile, 1e6, 2000)


def known() -> History:
    """A tuning of thirty trials."""
    return History(
        trials=30,
        curve=((1, 3e-4), (10, 2.5e-4), (30, 2.5e-4)),
        outcomes={"measured": 28, "crashed": 2},
        causes=(("crashed", HOSTILE, 2),),
        disturbed=3,
        known=28,
        runs=(("20260101", "2026-01-01T00:00:00", 30, "finished"),),
    )


class ReportSectionTestCase:
    """What every ``autotune.report.ReportSection`` must do."""

    @pytest.fixture
    def section(self) -> ReportSection:
        """The section under test."""
        raise NotImplementedError("give a fixture `section`")

    @pytest.fixture
    def cases(self) -> Sequence[Facts]:
        """Facts that it is shown: with little known, with all, and with hostile names."""
        little = facts()
        full = replace(little, before=little.profile, history=known(), database=Path("t.db"))
        return [little, full, replace(facts(HOSTILE, HOSTILE), history=known())]

    def test_it_has_a_name_and_a_title(self, section: ReportSection) -> None:
        """The name is that of its place on the page."""
        assert re.fullmatch(r"[a-z][\w.-]*", section.name)
        assert section.title

    def test_it_shows_whatever_is_known(
        self, section: ReportSection, cases: Sequence[Facts]
    ) -> None:
        """Or nothing, but it never fails."""
        shown = [section.html(case) for case in cases]
        assert all(isinstance(html, str) for html in shown)
        assert any(shown), "a section that never shows anything"

    def test_its_html_is_whole(self, section: ReportSection, cases: Sequence[Facts]) -> None:
        """Every element that it opens is closed, in order."""
        for case in cases:
            checker = _Checker()
            checker.feed(str(escape(section.html(case))))
            checker.close()
            assert not checker.open, f"never closed: {checker.open}"

    def test_it_works_offline_and_without_scripts(
        self, section: ReportSection, cases: Sequence[Facts]
    ) -> None:
        """Nothing is loaded from elsewhere, nothing is executed, and names are only shown."""
        for case in cases:
            html = str(escape(section.html(case)))
            assert "<b onload" not in html
            assert not re.search(r"<(script|iframe|object|link|img)\b", html, re.IGNORECASE)
            assert not re.search(r"<[^>]*\b(src|srcset)\s*=", html, re.IGNORECASE)

    def test_it_is_the_same_again(self, section: ReportSection, cases: Sequence[Facts]) -> None:
        """Equal facts give equal HTML."""
        for case in cases:
            assert section.html(case) == section.html(case)


class _Checker(HTMLParser):
    """Follows which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
            self.open.pop()
