"""The report: sections keep the contract, the page is one file, the history the database's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.measure.outcome import Crashed
from autotune.report.base import KIND, Facts, ReportSection
from autotune.report.charts import TOP, Axis
from autotune.report.history import history
from autotune.testing import ReportSectionTestCase
from autotune.testing.report_sections import HOSTILE, facts, known
from search_spaces import plugins
from search_spaces.plugins import installed
from tests.unit.database_samples import OTHER_TASK, TARGET, TASK, measured, open_with_run, record

OURS = ("summary", "roofline", "kernels", "tuning", "choices", "failures", "environment")
SECTIONS = {plugin.name: plugin.found for plugin in installed(KIND)}


@pytest.mark.parametrize("name", OURS)
class TestOurs(ReportSectionTestCase):
    @pytest.fixture
    def section(self, name: str) -> ReportSection:
        found = SECTIONS[name]
        assert found is not None
        return found


class Faulty(ReportSection):
    name = "faulty"
    title = "Faulty"

    def html(self, facts: Facts) -> str:
        raise RuntimeError("no such figure")


class Plain(ReportSection):
    name = "plain"
    title = "Plain"

    def html(self, facts: Facts) -> str:
        return "1 < 2"


@pytest.fixture
def full() -> Facts:
    little = facts(HOSTILE, HOSTILE)
    return replace(little, before=little.profile, history=known(), database=Path("t.db"))


def test_the_page_is_one_small_file_with_every_section(full: Facts) -> None:
    from autotune.report.report import page

    html = page(full)
    assert len(html) < 2_000_000
    assert re.findall(r'<section id="([^"]+)"', html)[: len(OURS)] == list(OURS)
    assert "<b onload" not in html and "<script" not in html
    assert not re.search(r'(src|href)="(?!#)', html)  # nothing from elsewhere
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_a_section_that_fails_costs_only_itself(
    full: Facts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from autotune.report.report import page

    every = (Faulty(), *(s for s in SECTIONS.values() if s is not None), Plain())
    monkeypatch.setattr(plugins, "_usable", lambda kind: every)
    html = page(full)
    assert "report section faulty" in caplog.text and 'id="faulty"' not in html
    assert "1 &lt; 2" in html  # plain text is text
    assert html.index('id="environment"') < html.index('id="plain"')


def test_a_busy_machine_is_told_first(full: Facts) -> None:
    from autotune.report.sections import Summary

    assert "busy" not in Summary().html(full)
    profile = replace(full.profile, high=2 * full.profile.wall)
    shown = Summary().html(replace(full, profile=profile, history=None))
    assert '<p class="warning">The machine was busy' in shown


def test_a_kernel_above_the_roof_is_drawn_where_it_is(full: Facts) -> None:
    from autotune.report.sections import Roofline

    entry = full.profile.entries[0]  # by Winograd's algorithm, with fewer operations
    fast = replace(entry, roof=3.0, flops=3 * full.profile.roof.peak * entry.seconds)
    shown = Roofline().html(replace(full, profile=replace(full.profile, entries=(fast,))))
    dot = float(re.findall(r'cy="([\d.]+)"', shown)[0])
    roof = float(re.findall(r'points="[^"]*,([\d.]+)" class="roof"', shown)[0])
    assert TOP < dot < roof and "fewer operations are done" in shown
    assert "fewer operations" not in Roofline().html(full)


def test_ticks_are_round_and_within() -> None:
    assert Axis(0.0, 0.87, "").ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert Axis(1, 1000, "", True).ticks() == [1, 10, 100, 1000]
    assert Axis(1, 89, "", True).ticks() == pytest.approx([1, 2, 5, 10, 20, 50])
    assert Axis(2, 9, "", True).ticks() == [2, 4, 8]
    assert Axis(1, 2, "", True).share(0) == 0.0 and Axis(0, 1, "").share(2) == 1.0


def test_the_history_of_a_model_is_its_own_and_falls(tmp_path: Path) -> None:
    database, run = open_with_run(tmp_path / "t.db")
    with database:
        model = database.models()[0].digest
        for tile, outcome, task in (
            (1, measured(4e-3), TASK),
            (1, measured(1e-3), OTHER_TASK),
            (2, Crashed("run", 11, "SIGSEGV\nin the kernel"), TASK),
            (3, Crashed("run", 11, "SIGSEGV\nin the kernel"), TASK),
            (4, measured(2e-3), TASK),
            (5, measured(3e-3), TASK),
        ):
            database.add(record(tile, outcome, run, task=task))
        database.add(record(4, measured(2.5e-3), run, final=True))
        found = history(database, model, TARGET.digest)
        assert history(database, "no such model", TARGET.digest).curve == ()
    assert found.trials == 6  # finals are no trials
    assert [trial for trial, _ in found.curve] == [1, 5, 6]
    assert [s for _, s in found.curve] == pytest.approx([15e-3, 9e-3, 9e-3])  # 3 calls of each
    assert found.outcomes == {"measured": 5, "crashed": 2}
    assert found.causes == (("crashed", "run: in the kernel", 2),)
    assert [(name, trials) for name, _, trials, _ in found.runs] == [(run, 6)]
