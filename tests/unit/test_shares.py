"""Which space serves which share of the time."""

from __future__ import annotations

from autotune.shares import shares, shares_text


def test_shares_add_up_and_the_largest_comes_first() -> None:
    found = shares([("b", 1.0), ("a", 2.0), ("b", 5.0)])
    assert list(found.items()) == [("b", 0.75), ("a", 0.25)]
    assert shares_text(found) == "b 75 %, a 25 %"


def test_equal_shares_are_ordered_by_name() -> None:
    assert list(shares([("b", 1.0), ("a", 1.0)])) == ["a", "b"]


def test_nothing_has_no_shares() -> None:
    assert shares([]) == {}
    assert shares([("a", 0.0)]) == {}
    assert shares_text({}) == ""
