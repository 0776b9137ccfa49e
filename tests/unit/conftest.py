"""What several tests of the search begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.testing.landscape import PlainSpace, TileSpace
from search_spaces import registry
from tuning_db.database import TuningDatabase


@pytest.fixture
def landscape() -> Iterator[None]:
    """The spaces with a known best point, registered."""
    for space in (TileSpace(), PlainSpace()):
        registry.register(space)
    yield
    for name in ("tile", "plain"):
        registry.unregister(name)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[TuningDatabase]:
    """An empty database."""
    with TuningDatabase.open(tmp_path / "tuning.db") as opened:
        yield opened


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer points to look at for each proposal: the loop is the same with any number, and to beat
    random is harder with few."""
    from autotune.search.sampler import CostModelSampler

    monkeypatch.setitem(CostModelSampler.__init__.__kwdefaults__, "pool", 128)
