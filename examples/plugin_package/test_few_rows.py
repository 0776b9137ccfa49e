# my_kernels/test_few_rows.py
"""The contract that every search space has to keep, on products of different sizes."""

import pytest
from few_rows import FewRows

from autotune.testing import SearchSpaceTestCase, product


class TestFewRows(SearchSpaceTestCase):
    candidates = 3  # random points of each task that are built, run and compared

    @pytest.fixture
    def space(self):
        return FewRows()

    @pytest.fixture
    def tasks(self):
        return [product(1, 64, 48), product(7, 32, 25)]
