"""Several operators as one kernel: graph spaces that group them, spaces that schedule them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from autotune.target import named, native
from autotune.testing.spaces import Judge, candidate_of
from search_spaces.base import SearchSpace
from search_spaces.cpu.attention import AttentionSpace, attention_of
from search_spaces.cpu.separable import SeparableSpace, separable_of
from search_spaces.graph import attention, separable, stems
from search_spaces.graph.base import GraphSpace
from search_spaces.registry import spaces_for
from search_spaces.task import Target, Task
from tests.compiler.graphs import same
from tests.compiler.models import Maker, fused, relax_model
from tests.compiler.our_spaces import THREADS, OurSpace


def heads(
    m: Maker,
    q: Any,
    k: Any,
    v: Any,
    *,
    masked: bool = False,
    turned: bool = True,
    scale: bool = True,
) -> Any:
    """Attention of [batch, rows, heads, depth] tensors, as exporters write it."""
    from tvm import relax

    op = relax.op
    queries = m.emit(op.permute_dims(q, [0, 2, 1, 3]))
    keys = m.emit(op.permute_dims(k, [0, 2, 3, 1]))
    values = m.emit(op.permute_dims(v, [0, 2, 1, 3]))
    scores = m.emit(op.matmul(queries, keys))
    if scale:
        scores = m.emit(op.divide(scores, m.constant(2.5)))
    if masked:
        scores = m.emit(op.add(scores, m.weight(1, 1, 1, int(k.ty.shape.values[1]))))
    made = m.emit(op.matmul(m.emit(op.nn.softmax(scores, axis=-1)), values))
    return m.emit(op.permute_dims(made, [0, 2, 1, 3])) if turned else made


def separated(
    m: Maker, x: Any, outputs: int, *, window: int = 3, stride: int = 1, residual: bool = False,
    act: bool = True,
) -> Any:  # fmt: skip
    """Depthwise, bias and hard swish, pointwise, bias, and what else may follow."""
    from tvm import relax

    op = relax.op

    def swish(value: Any) -> Any:
        gate = m.emit(op.clip(m.emit(op.add(value, m.constant(3.0))), 0.0, 6.0))
        return m.emit(op.multiply(m.emit(op.multiply(value, gate)), m.constant(1 / 6)))

    channels = int(x.ty.shape.values[1])
    pads = [window // 2] * 4
    kernel = m.weight(channels, 1, window, window)
    made = m.emit(op.nn.conv2d(x, kernel, strides=stride, padding=pads, groups=channels))
    if act:
        made = swish(m.emit(op.add(made, m.weight(1, channels, 1, 1))))
    made = m.emit(op.nn.conv2d(made, m.weight(outputs, channels, 1, 1)))
    made = m.emit(op.add(made, m.weight(1, outputs, 1, 1)))
    if residual:
        made = m.emit(op.add(made, x))
    return swish(made) if act else made


def grouped(space: GraphSpace, module: Any, target: Target) -> Any:
    """``module`` laid out, with all that ``space`` finds as one kernel each."""
    from autotune.graph.pipeline import lay_out

    module = lay_out(module)
    found = space.parameters(module, target)
    assert found, "nothing was found"
    return space.apply(module, target, dict.fromkeys(found, True))


def tasks_made(space: GraphSpace, module: Any, target: Target) -> list[Task]:
    from autotune.graph.tasks import extract_tasks

    return list(extract_tasks(fused(grouped(space, module, target), target))[0])


ATTENTIONS: dict[str, tuple[list[tuple[int, ...]], dict[str, Any]]] = {
    "bert": ([(1, 32, 3, 16)] * 3, {"masked": True}),
    "bare": ([(2, 12, 2, 8)] * 3, {"turned": False, "scale": False}),
    "other lengths": ([(1, 6, 2, 8), (1, 20, 2, 8), (1, 20, 2, 12)], {}),
}

SEPARABLES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((1, 16, 12, 12), {"outputs": 24}),
    "strided, 5x5": ((1, 24, 20, 14), {"outputs": 12, "window": 5, "stride": 2}),
    "residual": ((2, 8, 7, 6), {"outputs": 8, "residual": True}),
    "nothing between": ((1, 16, 8, 8), {"outputs": 16, "act": False}),
}


def attention_model(name: str) -> Any:
    shapes, options = ATTENTIONS[name]
    return relax_model(shapes, lambda m, q, k, v: heads(m, q, k, v, **options))


def separable_model(name: str) -> Any:
    shape, options = SEPARABLES[name]
    return relax_model([shape], lambda m, x: separated(m, x, **options))


MODELS = {
    **{
        f"attention, {name}": (attention.AttentionSpace(), attention_model, name)
        for name in ATTENTIONS
    },
    **{
        f"separable, {name}": (separable.SeparableSpace(), separable_model, name)
        for name in SEPARABLES
    },
}


@pytest.mark.parametrize("case", MODELS)
def test_what_becomes_one_kernel_computes_the_same(case: str) -> None:
    space, model, name = MODELS[case]
    target = named("x86-64", THREADS)
    module = model(name)
    same(module, lambda m: grouped(space, m, target))
    made = [t for t in tasks_made(space, module, target) if len(t.workload.blocks) > 2]
    assert len(made) == 1, "one kernel, and at most transposes around it"
    read = attention_of if "attention" in case else separable_of
    assert read(made[0].workload) is not None


@pytest.mark.parametrize("pads", [0, 1])
def test_a_first_convolution_reads_the_image_as_it_was_given(pads: int) -> None:
    from tvm import relax

    op = relax.op
    target = named("x86-64", THREADS)

    def model(m: Maker, x: Any) -> Any:
        made = m.emit(op.nn.conv2d(x, m.weight(8, 3, 3, 3), strides=2, padding=[pads] * 4))
        return m.emit(op.nn.relu(m.emit(op.add(made, m.weight(1, 8, 1, 1)))))

    module = relax_model([(1, 3, 13, 11)], model)
    same(module, lambda m: grouped(stems.StemSpace(), m, target))
    tasks = tasks_made(stems.StemSpace(), module, target)
    (stem,) = [task for task in tasks if "stem" in task.workload.name]
    assert stem.workload.arguments[0].shape == (1, 3, 13, 11)
    here = native(THREADS)
    judge = Judge(stem, here)
    space = spaces_for(stem, here)[0]
    assert space.name == "cpu.tiled"
    judge.accept(candidate_of(space, space.default(stem, here)))


def test_attention_is_one_kernel_by_default_where_scores_exceed_the_caches() -> None:
    from dataclasses import replace

    from autotune.graph.pipeline import lay_out

    module = lay_out(attention_model("bert"))  # 3 x 32 x 32 scores: 12 KiB
    target = named("x86-64", THREADS)
    for size, pays in ((4096, True), (8192, False)):
        found = attention.AttentionSpace().default(module, replace(target, l2=size))
        assert list(found.values()) == [pays]


def test_what_others_read_is_not_hidden_in_a_kernel() -> None:
    """Weights and what is between convolutions, where something else needs them as well."""
    from tvm import relax

    from autotune.graph.pipeline import lay_out

    target = named("x86-64", THREADS)

    def shown(m: Maker, q: Any, k: Any, v: Any) -> Any:
        op = relax.op
        scores = m.emit(op.matmul(q, m.emit(op.permute_dims(k, [0, 1, 3, 2]))))
        weights = m.emit(op.nn.softmax(scores, axis=-1))
        return [m.emit(op.matmul(weights, v)), weights]

    module = lay_out(relax_model([(1, 2, 8, 8)] * 3, shown))
    assert not attention.AttentionSpace().parameters(module, target)

    def squeezed(m: Maker, x: Any) -> Any:
        op = relax.op
        between = m.emit(op.nn.conv2d(x, m.weight(8, 1, 3, 3), padding=[1] * 4, groups=8))
        gate = m.emit(op.sigmoid(m.emit(op.mean(between, axis=[2, 3], keepdims=True))))
        return m.emit(op.nn.conv2d(m.emit(op.multiply(between, gate)), m.weight(8, 8, 1, 1)))

    module = lay_out(relax_model([(1, 8, 6, 6)], squeezed))
    assert not separable.SeparableSpace().parameters(module, target)


def every_task(space: GraphSpace, models: Sequence[Any], target: Target) -> list[Task]:
    found = [task for model in models for task in tasks_made(space, model, target)]
    return [t for t in found if attention_of(t.workload) or separable_of(t.workload)]


class TestAttentionSpace(OurSpace):
    candidates = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return AttentionSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        models = [attention_model(name) for name in ATTENTIONS]
        return every_task(attention.AttentionSpace(), models, target)


class TestSeparableSpace(OurSpace):
    candidates = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return SeparableSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        models = [separable_model(name) for name in SEPARABLES]
        return every_task(separable.SeparableSpace(), models, target)
