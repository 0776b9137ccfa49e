"""Layouts of regions: every choice computes the same, and blocked convolutions are scheduled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from autotune.target import named
from search_spaces.base import SearchSpace
from search_spaces.cpu.structure import tiled
from search_spaces.cpu.tiled import TiledSpace
from search_spaces.graph.expressions import is_constant
from search_spaces.graph.layouts import LayoutSpace
from search_spaces.graph.rewriting import Graph
from search_spaces.task import Target, Task
from tests.compiler.graphs import ops, same
from tests.compiler.models import Maker, fused, relax_model, tasks_of
from tests.compiler.our_spaces import THREADS, OurSpace


def stages(m: Maker, x: Any) -> Any:
    """A stem, a residual stage in 16 channels, and a strided one in 32: three regions."""
    from tvm import relax

    op = relax.op

    def convolution(value: Any, outputs: int, window: int, stride: int = 1) -> Any:
        weight = m.weight(
            outputs, int(value.ty.shape.values[1]), window, window, low=-0.3, high=0.3
        )
        made = m.emit(op.nn.conv2d(value, weight, strides=stride, padding=[window // 2] * 4))
        return m.emit(op.add(made, m.weight(1, outputs, 1, 1)))

    stem = m.emit(op.nn.relu(convolution(x, 16, 3, 2)))
    pooled = m.emit(op.nn.max_pool2d(stem, pool_size=[3, 3], strides=[2, 2], padding=[1] * 4))
    inner = m.emit(op.nn.relu(convolution(pooled, 16, 3)))
    stage = m.emit(op.nn.relu(m.emit(op.add(convolution(inner, 16, 1), pooled))))
    last = m.emit(op.concat([convolution(stage, 32, 1, 2), convolution(stage, 8, 3, 2)], axis=1))
    return m.emit(op.mean(m.emit(op.nn.relu(convolution(last, 16, 1))), axis=[2, 3]))


def model() -> Any:
    return relax_model([(1, 3, 26, 22)], stages)


def laid_out(module: Any, target: Target, layouts: Sequence[Any]) -> Any:
    space = LayoutSpace()
    found = space.parameters(module, target)
    chosen = dict(zip(found, layouts, strict=False))
    assert all(layout in found[name].choices for name, layout in chosen.items())
    return space.apply(module, target, chosen)


CHOICES = {
    "last": ("NHWC", "NHWC", "NHWC"),
    "first": ("NCHW", "NCHW", "NCHW"),
    "eights": ("NHWC", "NCHWc", "NCHWc", 8),
    "sixteens": ("NCHW", "NCHWc", "NHWC", 16),
    "mixed": ("NHWC", "NCHWc", "NCHW", 8),
}


@pytest.mark.parametrize("case", CHOICES)
def test_every_layout_computes_the_same(case: str) -> None:
    from autotune.graph.pipeline import lay_out

    target = named("x86-64", THREADS)
    module = model()
    changed = laid_out(module, target, CHOICES[case])
    same(module, lambda _: fused(lay_out(changed), target))
    assert changed.same_as(module) == (case == "last")
    # Weights are laid out when the graph is chosen, not when the model runs.
    graph = Graph(changed)
    converted = [graph.call(var, "layout_transform") for var in graph.values]
    assert not any(is_constant(call.args[0]) for call in converted if call is not None)


def test_regions_are_named_and_channels_last_by_default() -> None:
    target, space = named("x86-64", THREADS), LayoutSpace()
    default = space.default(model(), target)
    assert set(default) == set(space.parameters(model(), target))
    assert [value for name, value in default.items() if name != "block"] == ["NHWC"] * 3
    assert space.apply(model(), target, {}) is not None
    assert ops(space.apply(model(), target, {"elsewhere": "NCHW"})) == ops(model())


def test_where_regions_meet_images_are_converted_by_kernels_of_their_own() -> None:
    target = named("x86-64", THREADS)
    tasks = tasks_of(laid_out(model(), target, CHOICES["mixed"]), target)
    convolutions = [task for task in tasks if "conv2d" in task.workload.name]
    assert len(tasks) > len(convolutions)
    nests = [tiled(task.workload) for task in convolutions]
    assert [nest.blocked for nest in nests if nest is not None and nest.blocked] == [8, 8]


class TestBlockedConvolutions(OurSpace):
    candidates = 5

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return TiledSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        found = [
            task
            for choice in ("eights", "sixteens")
            for task in tasks_of(laid_out(model(), target, CHOICES[choice]), target)
        ]
        nests = {task.workload.key: tiled(task.workload) for task in found}
        blocked = {task.workload.key: task for task in found if "conv2d" in task.workload.name}
        return [task for key, task in blocked.items() if getattr(nests[key], "blocked", 0)]
