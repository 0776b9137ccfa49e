"""The figures of ``benchmarks.search``, from looks that are known."""

from __future__ import annotations

import math
import xml.etree.ElementTree as xml

import pytest

from benchmarks.search_figures import (
    Curve,
    Look,
    compared,
    curve,
    leaders,
    of_sampler,
    ranking,
)
from benchmarks.search_plot import plot


def looks(*told):
    """Looks at candidates of one workload, a second each."""
    return [Look(("w", name), seconds, i + 1.0) for i, (name, seconds) in enumerate(told)]


LOOKS = looks(
    ("a", 4.0), ("b", None), ("c", 2.0), ("d", 3.0), ("e", 1.0), ("f", 1.5), ("g", 1.6)
)  # fmt: skip
TRUTH = {
    ("w", "a"): 4.0, ("w", "c"): 2.0, ("w", "d"): 2.5,
    # These were lucky when they were first looked at.
    ("w", "e"): 2.5, ("w", "f"): 2.5, ("w", "g"): 2.5,
}  # fmt: skip


def flat(share, count=16):
    return Curve((share,) * count, tuple(float(i + 1) for i in range(count)))


def test_leaders_are_decided_by_first_looks_and_worth_what_they_really_take():
    leading = ["".join(key[1] for key in lead["w"]) for lead in leaders(LOOKS)]
    assert leading == ["a", "a", "ca", "cda", "ecd", "efc", "efg"]
    assert leaders(looks(("b", None))) == [{}]
    found = curve(LOOKS, {"w": 7}, TRUTH)
    assert found.shares == (0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.8)
    assert found.after(3.5) == 1.0
    assert found.after(0.5) == 0.0


def test_a_model_is_nowhere_until_each_of_its_tasks_is_and_then_the_sum_counts():
    both = [*looks(("a", 4.0)), Look(("v", "x"), 1.0, 2.0), Look(("w", "c"), 2.0, 3.0)]
    truth = {("w", "a"): 4.0, ("w", "c"): 2.0, ("v", "x"): 1.0}
    assert curve(both, {"w": 1, "v": 2}, truth).shares == (0.0, 4 / 6, 1.0)


def test_a_level_counts_from_where_it_is_kept():
    found = Curve((0.5, 0.96, 0.9, 0.96, 1.0), (2.0, 4.0, 6.0, 8.0, 10.0))
    assert (found.looks_to(0.95), found.seconds_to(0.95)) == (4, 8.0)
    assert Curve((0.96, 0.97), (1.0, 2.0)).looks_to(0.95) == 1
    assert Curve((0.5, 0.9), (1.0, 2.0)).seconds_to(0.95) is None


def test_searches_that_never_got_there_need_more_than_they_had():
    found = of_sampler([flat(0.9), flat(1.0), flat(0.5)])
    assert found["after"] == {"16": {"median": 0.9, "low": 0.5, "high": 1.0}}
    assert (found["trials_to_0.95"], found["reached_0.95"]) == (17, 1)
    assert found["seconds_to_0.95"] is None
    assert found["curve"] == [0.9] * 16


def test_whoever_led_is_measured_again_and_what_fails_then_is_as_slow_as_the_slowest():
    asked = []

    def again(keys):
        asked.extend(key[1] for key in keys)
        return {key: seconds for key, seconds in TRUTH.items() if key[1] != "e"}

    found = compared({"w": 1}, {"ours": [LOOKS], "other": [LOOKS[:3]]}, again)
    assert asked == ["a", "c", "d", "e", "f", "g"]
    assert found["best_seconds"] == 2.0
    assert found["truth"] == {
        f"w:{name}": 4.0 if name == "e" else TRUTH["w", name] for name in asked
    }
    assert found["samplers"]["ours"]["final"] == 0.8
    assert found["samplers"]["other"]["final"] == 1.0


def test_rankings_are_judged_by_pairs_and_by_their_top():
    seconds = [float(n) for n in range(1, 17)]
    perfect = ranking([-s for s in seconds], seconds)
    assert perfect == {"pairs": 1.0, "recall": 1.0, "top1": 1.0, "topk": 1.0}
    worst = ranking(seconds, seconds)
    assert (worst["pairs"], worst["recall"]) == (0.0, 0.0)
    assert worst["top1"] == pytest.approx(1 / 16)
    assert worst["topk"] == pytest.approx(1 / 9)
    assert math.isnan(ranking([1.0, 2.0], [1.0, 1.01], top=1)["pairs"])


def test_the_plot_is_an_svg_with_a_line_for_each_curve():
    curves = {"ours": ((1, 2, 3), (0.5, 0.9, 1.0)), "<others>": ((1, 2, 3), (0.4, 0.6, 0.7))}
    made = xml.fromstring(plot({name: (curves, curves) for name in ("gemm", "conv")}))
    assert sum(node.tag.endswith("polyline") for node in made.iter()) == 8
    assert any(node.text == "<others>" for node in made.iter())
