"""What is said of a Ray cluster before one is needed."""

from __future__ import annotations

import sys

import pytest

from autotune.errors import InputError, MissingDependency
from autotune.measure.cluster import check_ray


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"run pip install 'autotune\[ray\]'"):
        check_ray("auto")


@pytest.mark.parametrize("address", ["", "head", "head:", "ray://head:10001:1", "head:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        check_ray(address)
