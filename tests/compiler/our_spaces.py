"""The contract of a search space, for those of ours: on this machine."""

from __future__ import annotations

import pytest

from autotune.target import native
from autotune.testing.spaces import SearchSpaceTestCase
from search_spaces.task import Target

THREADS = 2


class OurSpace(SearchSpaceTestCase):
    candidates = 2

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        return native(THREADS)
