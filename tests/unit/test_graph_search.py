"""The search over graphs, on spaces and prices whose best is known."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution

from autotune.graph import choices
from autotune.graphs import GraphChoice
from autotune.measure.outcome import Crashed
from autotune.search.chains import best_along
from autotune.search.graph import GraphSearch, described
from autotune.search.prices import LOOKS, Prices
from autotune.search.settings import SearchSettings
from autotune.testing.landscape import TARGET, latency, make_task
from autotune.testing.runners import AnalyticRunner
from search_spaces.graph.base import GraphSpace
from tuning_db.graphs import graph_of

pytestmark = pytest.mark.usefixtures("landscape")


class Switches(GraphSpace):
    """``count`` places, rewritten or not; a module is the choices of all spaces."""

    def __init__(self, name: str, count: int, default: bool = True) -> None:
        self.name, self.count, self.on = name, count, default

    def parameters(self, module, target):
        return {f"p{i}": CategoricalDistribution((False, True)) for i in range(self.count)}

    def default(self, module, target):
        return dict.fromkeys(self.parameters(module, target), self.on)

    def apply(self, module, target, parameters):
        return {**module, **{f"{self.name}.{name}": on for name, on in parameters.items()}}


@pytest.fixture
def spaces(monkeypatch):
    def use(*found):
        monkeypatch.setattr(choices, "graph_spaces", lambda: found)

    return use


def search(cost, seconds=math.inf):
    """Runs on tasks that are the choices themselves; ``cost`` is of those that are on."""
    seen = []

    def fuse(module, choices):
        on = {
            f"{space}.{name}"
            for space, told in choices.items()
            for name, value in told["parameters"].items()
            if value
        }
        assert on == {name for name, value in module.items() if value}
        seen.append(on)
        return SimpleNamespace(tasks=tuple(sorted(on)))

    found = GraphSearch({}, TARGET, fuse, lambda tasks, bound: cost(set(tasks)))
    return found, found.run(24, seconds), seen


def test_the_default_comes_first_and_the_best_wins(spaces):
    spaces(Switches("a", 3), Switches("b", 2, default=False))
    gains = {"a.p0": -1, "a.p1": 2, "a.p2": -1, "b.p0": -3, "b.p1": 1}
    found, best, seen = search(lambda on: 20.0 + sum(gains[name] for name in on))
    assert seen[0] == {"a.p0", "a.p1", "a.p2"}
    assert found.default.seconds == 20.0
    assert best.seconds == 15.0 and set(best.fused.tasks) == {"a.p0", "a.p2", "b.p0"}
    assert best.choices["b"] == {"version": 1, "parameters": {"p0": True, "p1": False}}
    # No graph is made twice.
    assert len({frozenset(on) for on in seen}) == len(seen) == len(found.trials) <= 24


def test_choices_that_pay_only_together_are_found(spaces):
    spaces(Switches("a", 4, default=False))
    found, best, _ = search(lambda on: {0: 10.0, 4: 9.0}.get(len(on), 11.0))
    assert best.seconds == 9.0 and found.default.seconds == 10.0


def test_what_each_space_gains_alone_is_timed_beside_the_best(spaces):
    spaces(*(Switches(name, 1, default=False) for name in "abc"))
    gains = {"a.p0": -3, "b.p0": -1, "c.p0": 1}
    found, best, _ = search(lambda on: 20.0 + sum(gains[name] for name in on))
    assert [(one.seconds, one.changed) for one in found.finalists()] == [
        (16.0, "a, b"), (17.0, "a"), (19.0, "b"),
    ]  # fmt: skip
    assert found.finalists(1) == [best] and found.default.changed == ""
    spaces(Switches("a", 2, default=False))
    found, best, _ = search(lambda on: 20.0 - len(on))
    assert found.finalists() == [best]  # it is the doing of one space


def test_the_plain_graph_is_compared_where_the_default_is_another(spaces):
    spaces(Switches("a", 2), Switches("b", 1, default=False))
    tasks = {"a.p0": make_task("a1"), "a.p1": make_task("a2"), "b.p0": make_task("b1")}

    def fuse(module, choices):
        return SimpleNamespace(tasks=tuple(tasks[name] for name, on in module.items() if on))

    found = GraphSearch({}, TARGET, fuse, lambda tasks, bound: 3.0 - len(tasks))
    found.run(8)
    plain = found.plain()
    assert plain.choices == {} and plain.fused.tasks == () and plain.seconds == 3.0
    spaces(Switches("a", 2, default=False))
    found.run(8)
    assert GraphChoice((), found.default, plain).winner is found.default
    found = GraphSearch({}, TARGET, fuse, lambda tasks, bound: 3.0 - len(tasks))
    found.run(8)
    assert found.plain() is None  # the default


class Layouts(GraphSpace):
    """Regions of a chain, in one of three layouts each."""

    name, count = "layouts", 5

    def parameters(self, module, target):
        return {f"r{i}": CategoricalDistribution("abc") for i in range(self.count)}

    def default(self, module, target):
        return dict.fromkeys(self.parameters(module, target), "a")

    def chain(self, module, target):
        return list(self.parameters(module, target))

    def apply(self, module, target, parameters):
        return {**module, **parameters}


def test_along_a_chain_regions_that_pay_only_side_by_side_are_found(spaces):
    """A conversion costs more than one region gains: only a run of them pays."""
    spaces(Layouts())
    gains = {"a": [0] * 5, "b": [5, -2, -2, -2, 5], "c": [9, 9, 1, 9, 9]}

    def price(tasks, bound):
        layouts = [value for _, value in tasks]
        converted = sum(one != other for one, other in zip(layouts, layouts[1:], strict=False))
        return 50 + 1.5 * converted + sum(gains[v][i] for i, v in enumerate(layouts))

    def fuse(module, choices):
        return SimpleNamespace(tasks=tuple(module.items()))

    found = GraphSearch({}, TARGET, fuse, price)
    best = found.run(32)
    assert list(best.choices["layouts"]["parameters"].values()) == ["a", "b", "b", "b", "a"]
    assert best.seconds == 47.0 and len(found.trials) <= 32


def test_the_best_values_along_a_chain_are_those_of_all_combinations():
    rng = np.random.default_rng(0)
    for places in (1, 2, 5):
        alone, together = rng.uniform(size=(places, 3)), rng.uniform(size=(places, 3, 3))

        def total(chosen, alone=alone, together=together):
            own = sum(alone[i, v] for i, v in enumerate(chosen))
            pairs = enumerate(zip(chosen, chosen[1:], strict=False))
            return own + sum(together[i, a, b] for i, (a, b) in pairs)

        found = best_along(
            [range(3)] * places,
            lambda i, v, alone=alone: alone[i, v],
            lambda i, a, b, together=together: together[i, a, b],
        )
        assert tuple(found) == min(product(range(3), repeat=places), key=total)
    with pytest.raises(ValueError, match="needs a value"):
        best_along([[1], []], lambda i, v: 0.0, lambda i, a, b: 0.0)


def test_graphs_that_cannot_be_priced_never_win(spaces):
    spaces(Switches("a", 2, default=False))
    _, best, _ = search(lambda on: math.inf if on else 5.0)
    assert best.fused.tasks == ()


def test_when_time_is_up_no_other_graph_is_begun_but_that_of_what_is_better(spaces):
    spaces(Switches("a", 5))
    found, best, seen = search(lambda on: 20.0 + len(on), seconds=0.0)
    assert len(seen) == 1 and best is found.default


def test_without_places_there_is_nothing_to_choose(spaces):
    spaces(Switches("a", 0))
    found, best, seen = search(lambda on: 1.0)
    assert best is None and not seen and not found.trials


def test_a_task_is_measured_a_few_times_and_priced_by_its_best_record(database):
    one, two = make_task("a1", calls=3), make_task("b2", extent=32)
    runner = AnalyticRunner(TARGET, latency)
    prices = Prices(TARGET, runner, database, SearchSettings(), lambda task: task is not two)
    first = prices([one])  # of the default graph nothing is known: its default alone
    assert len(runner.measured) == prices.measured == 1
    assert first == pytest.approx(3 * database.best("a1", TARGET.digest).seconds)
    assert prices([one, two]) == first and len(runner.measured) == 1
    again = Prices(TARGET, runner, database, SearchSettings(), lambda task: True)
    again([one])
    other = make_task("c3", extent=48)
    assert again([one, other], first) > first
    assert len(runner.measured) == 1 + LOOKS and again.measured == LOOKS


def test_a_graph_that_an_estimate_tells_from_the_best_costs_no_measurement(database):
    def rate(task, candidate):
        return task.flops / 1e9

    runner = AnalyticRunner(TARGET, rate)
    prices = Prices(TARGET, runner, database, SearchSettings(), lambda task: True)
    known = [make_task(f"k{extent}", extent=extent) for extent in range(8, 136, 4)]
    total = prices(known)
    assert total == pytest.approx(sum(task.flops for task in known) / 1e9, rel=0.1)
    measured = len(runner.measured)
    prices = Prices(TARGET, runner, database, SearchSettings(), lambda task: True)
    prices(known)
    large, small = make_task("large", extent=98), make_task("small", extent=30)
    # Ten times the best: an estimate is enough. Below the best: it has to be measured.
    assert prices([large], bound=large.flops / 1e10) > large.flops / 1e10
    assert len(runner.measured) == measured and prices.estimated == 1
    graph = [*known[:2], small]
    assert prices(graph, bound=1.0) == pytest.approx(sum(t.flops for t in graph) / 1e9, rel=0.1)
    assert len(runner.measured) == measured + LOOKS
    other = make_task("other", extent=22)  # a graph of new tasks only: by its defaults
    assert prices([other], bound=1.0) == pytest.approx(other.flops / 1e9, rel=0.1)
    assert len(runner.measured) == measured + LOOKS + 1
    # And where it is not likely to be faster, by an estimate: to measure it would be dear.
    new = make_task("new", extent=26)
    assert prices([new], bound=0.9 * new.flops / 1e9) == pytest.approx(new.flops / 1e9, rel=0.3)
    assert len(runner.measured) == measured + LOOKS + 1


def test_a_task_whose_default_fails_makes_a_graph_worthless(database):
    runner = AnalyticRunner(TARGET, lambda task, candidate: Crashed("run", 11, "SIGSEGV"))
    prices = Prices(TARGET, runner, database, SearchSettings(), lambda task: True)
    task = make_task("a1")
    assert prices([task]) == prices([task]) == math.inf
    assert len(runner.measured) == 1


def test_the_database_remembers_what_the_last_run_found(spaces, database):
    spaces(Switches("a", 1))
    found, best, _ = search(lambda on: 1.0 if on else 0.5)
    prices = Prices(TARGET, AnalyticRunner(TARGET, latency), database, SearchSettings(), bool)
    prices([make_task("a1")])  # so that the target is known
    database.register_model("m", "model", TARGET.digest, [])
    assert graph_of(database, "m", TARGET.digest) is None
    for kept in (True, False):
        told = {"graph": described(best, found.default, {"value": 2.0}, kept)}
        run = database.begin_run(TARGET.digest, "m", told, {})
        assert graph_of(database, "m", TARGET.digest) != told["graph"]  # not finished
        database.finish_run(run)
        chosen = graph_of(database, "m", TARGET.digest)
        assert chosen == told["graph"]
        assert chosen["choices"]["a"]["parameters"] == {"p0": not kept}
    assert graph_of(database, "other", TARGET.digest) is None
