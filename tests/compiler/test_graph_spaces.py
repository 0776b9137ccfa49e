"""Graph spaces: what they find, that every choice computes the same, and that choices replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from autotune.errors import InputError
from autotune.graph.choices import check_choices, choose
from autotune.graph.tasks import extract_tasks
from autotune.target import named
from search_spaces.graph.base import GraphSpace
from search_spaces.graph.concats import ConcatSpace
from search_spaces.graph.edges import EdgeSpace
from search_spaces.graph.norms import NormSpace
from search_spaces.graph.parallel import ParallelSpace
from search_spaces.graph.registry import graph_spaces
from search_spaces.task import Target
from tests.compiler.graphs import ops, same
from tests.compiler.models import Maker, fused, relax_model, tasks_of


@pytest.fixture(scope="module")
def target() -> Target:
    return named("x86-64", 2)


def norm(m: Maker, x: Any, form: str, scaled: bool = True) -> Any:
    from tvm import relax

    op, eps = relax.op, m.constant(1e-5)
    mean = m.emit(op.mean(x, axis=[-1], keepdims=True))
    centred = m.emit(op.subtract(x, mean))
    if form == "power":
        square = op.power(centred, m.constant(2.0))
    elif form == "twice":
        again = m.emit(op.subtract(x, m.emit(op.mean(x, axis=[-1], keepdims=True))))
        square = op.multiply(again, again)
    else:
        square = op.multiply(centred, centred)
    variance = m.emit(op.mean(m.emit(square), axis=[-1], keepdims=True))
    total = m.emit(op.add(variance, eps))
    if form == "rsqrt":
        value = m.emit(op.multiply(centred, m.emit(op.rsqrt(total))))
    else:
        value = m.emit(op.divide(centred, m.emit(op.sqrt(total))))
    if not scaled:
        return value
    columns = int(x.ty.shape.values[-1])
    value = m.emit(op.multiply(value, m.weight(columns)))
    return m.emit(op.add(m.weight(1, columns), value))


def attention_inputs(m: Maker, x: Any, biased: bool) -> list[Any]:
    from tvm import relax

    made = []
    for columns in (12, 20, 8):
        value = m.emit(relax.op.matmul(x, m.weight(16, columns)))
        if biased:
            value = m.emit(relax.op.add(value, m.weight(columns)))
        made.append(m.emit(relax.op.nn.relu(value)))
    return made


def fire(m: Maker, x: Any, pooled: bool) -> Any:
    from tvm import relax

    op = relax.op
    one = m.emit(op.nn.relu(m.emit(op.nn.conv2d(x, m.weight(24, 8, 1, 1)))))
    two = m.emit(op.nn.relu(m.emit(op.nn.conv2d(x, m.weight(16, 8, 3, 3), padding=[1] * 4))))
    joined = m.emit(op.concat([one, two], axis=1))
    if pooled:
        joined = m.emit(op.nn.max_pool2d(joined, pool_size=[3, 3], strides=[2, 2]))
    return m.emit(op.nn.relu(m.emit(op.nn.conv2d(joined, m.weight(8, 40, 1, 1)))))


CASES: dict[str, tuple[GraphSpace, tuple[int, ...], Callable[[Maker, Any], Any], int]] = {
    **{
        f"norm {form}{'' if scaled else ', bare'}": (
            NormSpace(), (2, 5, 48), lambda m, x, f=form, s=scaled: norm(m, x, f, s), 1,
        )
        for form, scaled in product(("power", "product", "twice", "rsqrt"), (True, False))
    },
    "products": (ParallelSpace(), (2, 5, 16), lambda m, x: attention_inputs(m, x, False), 1),
    "biased products": (ParallelSpace(), (2, 5, 16), lambda m, x: attention_inputs(m, x, True), 1),
    "concat": (ConcatSpace(), (1, 8, 9, 9), lambda m, x: fire(m, x, False), 1),
    "pooled concat": (ConcatSpace(), (1, 8, 9, 9), lambda m, x: fire(m, x, True), 1),
    "two norms": (
        NormSpace(), (3, 32), lambda m, x: norm(m, norm(m, x, "power"), "product"), 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_choice_computes_the_same(case: str, target: Target) -> None:
    space, shape, model, places = CASES[case]
    module = relax_model([shape], model)
    parameters = space.parameters(module, target)
    assert len(parameters) == places
    assert set(space.default(module, target)) == set(parameters)
    for values in product((False, True), repeat=places):
        chosen = dict(zip(parameters, values, strict=True))
        changed = same(module, lambda m, c=chosen: space.apply(m, target, c))
        assert (ops(changed) == ops(module)) == (not any(values))


def test_a_norm_becomes_one_task_and_a_concat_none(target: Target) -> None:
    module = relax_model([(2, 5, 48)], lambda m, x: norm(m, x, "power"))
    (task,) = tasks_of(module, target)
    assert task.workload.name == "layer_norm"
    module = relax_model([(1, 8, 9, 9)], lambda m, x: fire(m, x, True))
    assert not any("concat" in task.workload.name for task in tasks_of(module, target))


def test_a_norm_of_large_values_keeps_its_digits(target: Target) -> None:
    """Where the mean is large beside the deviation, squares must not be subtracted."""
    from tvm import relax

    def model(m: Maker, x: Any) -> Any:
        far = m.emit(relax.op.add(x, m.constant(1000.0)))
        ones, zeros = m.constant(np.ones(64)), m.constant(np.zeros(64))
        return m.emit(relax.op.nn.layer_norm(far, ones, zeros, axes=[-1], epsilon=1e-6))

    from tests.compiler.models import lowered, run

    module = relax_model([(4, 64)], model)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 64)).astype("float32")
    (found,) = run(lowered(module, target), [x])
    far = (x + np.float32(1000)).astype("float64")
    exact = (far - far.mean(-1, keepdims=True)) / np.sqrt(far.var(-1, keepdims=True) + 1e-6)
    assert np.abs(found - exact).max() < 1e-3


@pytest.mark.parametrize("case", ["other axis", "result of its own", "grouped", "few channels"])
def test_what_does_not_fit_is_left_alone(case: str, target: Target) -> None:
    from tvm import relax

    op = relax.op

    def other_axis(m: Maker, x: Any) -> Any:
        mean = m.emit(op.mean(x, axis=[1], keepdims=True))
        centred = m.emit(op.subtract(x, mean))
        square = m.emit(op.multiply(centred, centred))
        total = m.emit(op.add(m.emit(op.mean(square, axis=[1], keepdims=True)), m.constant(1e-5)))
        return m.emit(op.divide(centred, m.emit(op.sqrt(total))))

    def result(m: Maker, x: Any) -> list[Any]:
        joined = m.emit(op.concat([x, m.emit(op.nn.relu(x))], axis=1))
        return [joined, m.emit(op.nn.conv2d(joined, m.weight(2, 16, 1, 1)))]

    def grouped(m: Maker, x: Any) -> Any:
        joined = m.emit(op.concat([x, m.emit(op.nn.relu(x))], axis=1))
        return m.emit(op.nn.conv2d(joined, m.weight(4, 8, 1, 1), groups=2))

    def few(m: Maker, x: Any) -> Any:
        joined = m.emit(op.concat([x, m.emit(op.nn.relu(x))], axis=1))
        return m.emit(op.nn.conv2d(joined, m.weight(64, 16, 1, 1)))

    models = {
        "other axis": other_axis, "result of its own": result, "grouped": grouped,
        "few channels": few,
    }  # fmt: skip
    module = relax_model([(1, 8, 6, 6)], models[case])
    changed, choices = choose(module, target)
    assert ops(changed) == ops(module)
    if case == "few channels":  # it may be chosen, but is not by default
        (chosen,) = choices["graph.concats"]["parameters"].values()
        assert chosen is False
    else:
        assert set(choices) <= {"graph.edges", "graph.layouts"}


def test_what_an_edge_is_cut_between_is_not_fused(target: Target) -> None:
    from tvm import relax

    from autotune.graph.pipeline import lay_out

    op = relax.op

    def model(m: Maker, x: Any) -> Any:
        made = m.emit(op.matmul(x, m.weight(16, 24)))
        made = m.emit(op.nn.relu(m.emit(op.add(made, m.weight(24)))))
        gate = m.emit(op.sigmoid(made))
        return m.emit(op.sum(m.emit(op.multiply(made, gate)), axis=-1))

    def kernels(module: Any) -> list[str]:
        return sorted(task.workload.name for task in extract_tasks(module)[0])

    def with_cuts(module: Any, cut: str) -> Any:
        late = lay_out(module)
        found = space.parameters(late, target)
        assert cut in found or not cut
        return fused(space.apply(late, target, {name: name == cut for name in found}), target)

    space = EdgeSpace()
    module = relax_model([(2, 5, 16)], model)
    whole = same(module, lambda m: with_cuts(m, ""))
    cut = same(module, lambda m: with_cuts(m, "nn.relu | multiply, sigmoid 2x5x24"))
    assert not any(name.endswith("relu") for name in kernels(whole))
    assert any(name.endswith("relu") for name in kernels(cut))


def test_choices_are_data_and_replay(target: Target) -> None:
    def model(m: Maker, x: Any) -> Any:
        return attention_inputs(m, norm(m, x, "power"), True)

    module = relax_model([(2, 5, 16)], model)
    _, default = choose(module, target)
    assert set(default) == {"graph.norms", "graph.parallel", "graph.edges"}
    other = json.loads(json.dumps(default))
    for chosen in other.values():
        chosen["parameters"] = dict.fromkeys(chosen["parameters"], False)
    plain, told = choose(module, target, other)
    early = ("graph.norms", "graph.parallel")
    assert all(told[name] == other[name] for name in early) and ops(plain) == ops(module)
    again, _ = choose(module, target, default)
    assert ops(again)["relax.matmul"] == 1 and ops(again)["relax.nn.layer_norm"] == 1
    # Nothing else is done than what the choices say.
    stale = {
        "graph.norms": {"version": 0, "parameters": default["graph.norms"]["parameters"]},
        "graph.parallel": {"version": 1, "parameters": {"elsewhere": False}},
    }
    kept = {"graph.parallel": default["graph.parallel"]}
    assert choose(module, target, stale)[1] == kept
    assert choose(module, target, {})[1] == {}


def test_choices_that_need_what_is_not_installed_are_refused_with_a_sentence() -> None:
    check_choices({"graph.norms": {"version": NormSpace.version, "parameters": {}}}, "x.lock")
    with pytest.raises(InputError, match=r"x\.lock was made with version 7 .* it is not installed"):
        check_choices({"graph.gone": {"version": 7, "parameters": {}}}, "x.lock")
    with pytest.raises(InputError, match="version 1 is installed here"):
        check_choices({"graph.norms": {"version": 0, "parameters": {}}}, "x.lock")


def test_spaces_are_plugins_applied_in_their_order() -> None:
    spaces = graph_spaces()
    names = [space.name for space in spaces]
    late = ["graph.precision", "graph.stems", "graph.attention", "graph.separable", "graph.edges"]
    assert [name for name in names if name.startswith("graph.")] == [
        "graph.norms", "graph.parallel", "graph.concats", "graph.layouts", *late,
    ]  # fmt: skip
    assert [space.name for space in spaces if space.laid_out] == late
