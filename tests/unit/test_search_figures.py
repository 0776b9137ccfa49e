"""The figures of ``benchmarks.search``, from looks that are known."""

from __future__ import annotations

import math
import xml.etree.ElementTree as xml

import pytest

from benchmarks.search_figures import (
    incumbents,
    levels,
    of_sampler,
    plot,
    ranking,
    trials_to,
)

LOOKS = [("a", 4.0), ("b", None), ("c", 2.0), ("d", 3.0), ("e", 1.0)]
TRUTH = {"a": 4.0, "c": 2.0, "e": 2.5}  # e was lucky when it was first looked at


def test_who_leads_is_decided_by_first_looks_and_worth_what_it_really_takes():
    assert incumbents(LOOKS) == ["a", "a", "c", "c", "e"]
    assert incumbents([("b", None)]) == [None]
    assert levels(LOOKS, TRUTH, best=2.0) == [0.5, 0.5, 1.0, 1.0, 0.8]


def test_a_level_counts_from_where_it_is_kept():
    assert trials_to([0.5, 0.96, 0.9, 0.96, 1.0], 0.95) == 4
    assert trials_to([0.96, 0.97], 0.95) == 1
    assert trials_to([0.5, 0.9], 0.95) is None


def test_searches_that_never_got_there_need_more_than_they_had():
    found = of_sampler([[0.9] * 16, [1.0] * 16, [0.5] * 16])
    assert found["after"] == {"16": {"median": 0.9, "low": 0.5, "high": 1.0}}
    assert (found["trials_to_0.95"], found["reached_0.95"]) == (17, 1)
    assert found["median"] == [0.9] * 16


def test_rankings_are_judged_by_pairs_and_by_their_top():
    seconds = [float(n) for n in range(1, 17)]
    perfect = ranking([-s for s in seconds], seconds)
    assert perfect == {"pairs": 1.0, "recall": 1.0, "top1": 1.0}
    worst = ranking(seconds, seconds)
    assert (worst["pairs"], worst["recall"]) == (0.0, 0.0)
    assert worst["top1"] == pytest.approx(1 / 16)
    assert math.isnan(ranking([1.0, 2.0], [1.0, 1.01], top=1)["pairs"])


def test_the_plot_is_an_svg_with_a_line_for_each_curve():
    curves = {"ours": [0.5, 0.9, 1.0], "<others>": [0.4, 0.6, 0.7]}
    made = xml.fromstring(plot({"gemm": curves, "conv": curves, "softmax": curves}))
    assert sum(node.tag.endswith("polyline") for node in made.iter()) == 6
    assert any(node.text == "<others>" for node in made.iter())
