"""Our search spaces: the contract of a space, and every fused function at awkward shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from autotune.target import named, native
from autotune.testing.spaces import Judge, candidate_of, draw, refused
from search_spaces.base import InvalidParameters, SearchSpace
from search_spaces.cpu.plain import PlainSpace
from search_spaces.cpu.rowwise import RowwiseSpace
from search_spaces.cpu.tiled import TiledSpace
from search_spaces.cpu.winograd import WinogradSpace
from search_spaces.registry import UnknownSpace
from search_spaces.scheduling import replay, schedule
from search_spaces.task import Target, Task
from tests.compiler.functions import (
    argmax,
    attention,
    biased,
    concat,
    convolution,
    dense,
    depthwise,
    elementwise,
    gathered,
    grouped,
    layer_norm,
    mean,
    padded,
    pooling,
    resized,
    shuffled,
    sliced,
    softmax,
    transpose,
)
from tests.compiler.models import Maker, relax_model, tasks_of
from tests.compiler.our_spaces import THREADS, OurSpace

SPACES: tuple[SearchSpace, ...] = (TiledSpace(), WinogradSpace(), RowwiseSpace(), PlainSpace())


# -- the contract


@pytest.fixture(scope="module")
def here() -> Target:
    return native(THREADS)


class TestTiledSpace(OurSpace):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return TiledSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        models = [
            dense(13, 24, 40),
            attention(3, 10, 16, 24, True),
            convolution((9, 11), 3, 20, (3, 3), 2, (1, 1, 1, 1), 1, True),
            depthwise((8, 8), 16, 3, 1, 1),
            pooling("max", (8, 8), 12, 2, 2, 0),
        ]
        return _matched(TiledSpace(), models, target)


class TestWinogradSpace(OurSpace):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return WinogradSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        models = [
            convolution((9, 11), 12, 20, (3, 3), 1, (1, 1, 1, 1), 1, True),
            convolution((8, 12), 16, 16, (3, 3), 1, (0, 0, 0, 0), 1, False, batch=2),
        ]
        return _matched(WinogradSpace(), models, target)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "channels"),
    [((3, 3), 2, 1, 16), ((3, 3), 1, 2, 16), ((5, 5), 1, 1, 16), ((3, 1), 1, 1, 16)],
)
def test_winograd_takes_nothing_but_3x3_of_stride_one(
    kernel: tuple[int, int], stride: int, dilation: int, channels: int, here: Target
) -> None:
    model = convolution((12, 12), channels, 16, kernel, stride, (1, 1, 1, 1), dilation, False)
    for task in tasks_of(model, here):
        assert not WinogradSpace().matches(task, here)


def test_a_rewritten_function_is_replayed_by_the_space_that_rewrote_it(here: Target) -> None:
    model = convolution((8, 12), 16, 16, (3, 3), 1, (1, 1, 1, 1), 1, True)
    space = WinogradSpace()
    (task,) = _matched(space, [model], here)
    made = schedule(task, here, candidate_of(space, space.default(task, here)))
    assert Judge(task, here).compare(replay(task, here, made.trace)).right
    stored = json.loads(made.trace)
    stored["rewritten"]["version"] = 99
    with pytest.raises(InvalidParameters, match="99"):
        replay(task, here, json.dumps(stored))
    stored["rewritten"]["space"] = "gone"
    with pytest.raises(UnknownSpace, match="gone"):
        replay(task, here, json.dumps(stored))


class TestRowwiseSpace(OurSpace):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return RowwiseSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        models = [
            softmax((3, 5), 37),
            layer_norm((6,), 48, True),
            elementwise((2, 7, 19)),
            transpose((2, 9, 17), (0, 2, 1)),
            mean((7, 7), 24),
        ]
        return _matched(RowwiseSpace(), models, target)


class TestPlainSpace(OurSpace):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return PlainSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target) -> Sequence[Task]:
        return _matched(PlainSpace(), [argmax((5, 21)), argmax((1, 130))], target)


def _matched(space: SearchSpace, models: Sequence[Any], target: Target) -> list[Task]:
    """The tasks of ``models`` that ``space`` takes: at least one of each model."""
    found: list[Task] = []
    for model in models:
        tasks = [task for task in tasks_of(model, target) if space.matches(task, target)]
        assert tasks, f"{space.name} takes nothing of\n{model}"
        found += tasks
    return found


# -- awkward shapes

AWKWARD = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 24, 31, 33, 40])
WIDE = st.sampled_from([1, 3, 4, 5, 7, 8, 11, 15, 16, 17, 23, 32, 37, 64, 67])
IMAGE = st.tuples(st.integers(5, 12), st.integers(5, 12))
TARGETS = st.sampled_from(["native", "x86-64"])


def awkward(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Bounded and the same on every run: ``target_name``, ``seed`` and the named strategies."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        bounded = settings(
            max_examples=6,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        drawn = given(target_name=TARGETS, seed=st.integers(0, 999), **strategies)
        return bounded(drawn(test))

    return decorate


def check(module: Any, target_name: str, seed: int) -> None:
    """Default and a random point of every space that takes a task of ``module`` are right."""
    # Registers of other widths change every tail, and any x86-64 has the narrow ones.
    target = native(THREADS) if target_name == "native" else named(target_name, THREADS)
    tasks = tasks_of(module, target)
    assert tasks
    for task in tasks:
        spaces = [space for space in SPACES if space.matches(task, target)]
        assert spaces, f"nothing takes {task.workload.name}"
        judge = Judge(task, target)
        for space in spaces:
            judge.accept(candidate_of(space, space.default(task, target)))
            for point in draw(space, task, target, seed=seed, count=60):
                if not refused(space, task, target, point):
                    judge.accept(candidate_of(space, point))
                    break


@awkward(m=AWKWARD, k=AWKWARD, n=WIDE, batch=st.sampled_from([0, 1, 3]))
def test_dense(m: int, k: int, n: int, batch: int, target_name: str, seed: int) -> None:
    check(dense(m, k, n, batch), target_name, seed)


@awkward(batch=st.integers(1, 4), m=AWKWARD, k=AWKWARD, n=WIDE, scaled=st.booleans())
def test_attention(
    batch: int, m: int, k: int, n: int, scaled: bool, target_name: str, seed: int
) -> None:
    check(attention(batch, m, k, n, scaled), target_name, seed)


@awkward(
    image=IMAGE,
    channels=st.sampled_from([1, 3, 5, 8, 13]),
    outputs=WIDE,
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1), (2, 2), (5, 5)]),
    stride=st.sampled_from([1, 2, 3]),
    pads=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0), (2, 2, 2, 2)]),
    dilation=st.sampled_from([1, 1, 2]),
    residual=st.booleans(),
)
def test_convolution(target_name: str, seed: int, **shape: Any) -> None:
    kernel, dilation, pads = shape["kernel"], shape["dilation"], shape["pads"]
    for extent, low, high, k in zip(shape["image"], pads[:2], pads[2:], kernel, strict=True):
        assume((k - 1) * dilation + 1 <= extent + low + high)
    check(convolution(**shape), target_name, seed)


@awkward(
    image=IMAGE,
    channels=st.sampled_from([8, 12, 20, 32]),
    outputs=WIDE,
    pads=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)]),
    residual=st.booleans(),
    batch=st.sampled_from([1, 2]),
)
def test_winograd(target_name: str, seed: int, **shape: Any) -> None:
    check(convolution(kernel=(3, 3), stride=1, dilation=1, **shape), target_name, seed)


@awkward(
    image=IMAGE,
    channels=WIDE,
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    pad=st.sampled_from([0, 1, 2]),
)
def test_depthwise(target_name: str, seed: int, **shape: Any) -> None:
    check(depthwise(**shape), target_name, seed)


@awkward(
    image=IMAGE,
    groups=st.sampled_from([2, 3, 4, 8]),
    inputs=st.sampled_from([1, 2, 4, 5, 16]),
    outputs=st.sampled_from([1, 2, 3, 4, 8, 16, 24]),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
)
def test_grouped(target_name: str, seed: int, **shape: Any) -> None:
    check(grouped(**shape), target_name, seed)


@awkward(
    kind=st.sampled_from(["max", "avg"]),
    image=IMAGE,
    channels=WIDE,
    size=st.sampled_from([2, 3]),
    stride=st.sampled_from([1, 2, 3]),
    pad=st.sampled_from([0, 1]),
)
def test_pooling(target_name: str, seed: int, **shape: Any) -> None:
    check(pooling(**shape), target_name, seed)


@awkward(image=IMAGE, channels=WIDE)
def test_mean(target_name: str, seed: int, **shape: Any) -> None:
    check(mean(**shape), target_name, seed)


ROWS = st.lists(st.integers(1, 7), min_size=1, max_size=3)
LENGTH = st.sampled_from([1, 2, 7, 16, 17, 31, 32, 48, 61, 96, 97, 100, 128, 131])


@awkward(rows=ROWS, length=LENGTH)
def test_softmax(target_name: str, seed: int, **shape: Any) -> None:
    check(softmax(**shape), target_name, seed)


@awkward(rows=ROWS, length=LENGTH, residual=st.booleans())
def test_layer_norm(target_name: str, seed: int, **shape: Any) -> None:
    check(layer_norm(**shape), target_name, seed)


@awkward(
    shape=st.tuples(st.integers(1, 5), AWKWARD, AWKWARD),
    order=st.sampled_from([(0, 2, 1), (2, 0, 1), (1, 0, 2), (2, 1, 0)]),
)
def test_transpose(target_name: str, seed: int, **shape: Any) -> None:
    check(transpose(**shape), target_name, seed)


@awkward(rows=st.tuples(st.integers(1, 4), AWKWARD), parts=st.lists(WIDE, min_size=2, max_size=3))
def test_concat(target_name: str, seed: int, **shape: Any) -> None:
    check(concat(**shape), target_name, seed)


@pytest.mark.parametrize("target_name", ["native", "x86-64-v3"])
@pytest.mark.parametrize("part", [36, 44, 72, 88])
def test_parts_that_end_in_half_a_vector(part: int, target_name: str) -> None:
    """TVM does not come to an end where it cuts their tails off."""
    check(concat(rows=(2, 5), parts=[part] * 3), target_name, 0)


@awkward(shape=st.lists(AWKWARD, min_size=1, max_size=4).filter(lambda s: len(s) < 4 or s[0] < 9))
def test_elementwise(target_name: str, seed: int, **shape: Any) -> None:
    check(elementwise(**shape), target_name, seed)


@awkward(shape=st.tuples(st.integers(1, 5), st.integers(1, 9), WIDE))
def test_biased(target_name: str, seed: int, **shape: Any) -> None:
    check(biased(**shape), target_name, seed)


@awkward(image=IMAGE, block=st.sampled_from([2, 3]), channels=WIDE)
def test_shuffled(target_name: str, seed: int, **shape: Any) -> None:
    check(shuffled(**shape), target_name, seed)


@awkward(
    shape=st.tuples(st.integers(1, 3), AWKWARD, WIDE),
    widths=st.tuples(*[st.integers(0, 3)] * 6),
)
def test_padded(target_name: str, seed: int, **shape: Any) -> None:
    check(padded(**shape), target_name, seed)


@awkward(
    shape=st.tuples(st.integers(1, 3), st.integers(4, 20), st.integers(4, 40)),
    begin=st.integers(0, 3),
    step=st.sampled_from([1, 2, 3]),
)
def test_sliced(target_name: str, seed: int, **shape: Any) -> None:
    check(sliced(**shape), target_name, seed)


@awkward(
    image=IMAGE,
    channels=WIDE,
    size=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    method=st.sampled_from(["nearest_neighbor", "linear"]),
)
def test_resized(target_name: str, seed: int, **shape: Any) -> None:
    check(resized(**shape), target_name, seed)


@awkward(rows=AWKWARD, length=WIDE, indices=st.lists(st.integers(0, 0), min_size=1, max_size=9))
def test_gathered(target_name: str, seed: int, **shape: Any) -> None:
    shape["indices"] = [i % shape["rows"] for i in range(seed, seed + len(shape["indices"]))]
    check(gathered(**shape), target_name, seed)


# -- other processors


@pytest.mark.parametrize("name", ["aarch64", "x86-64-v3", "x86-64-v4"])
def test_defaults_compile_for_other_processors(name: str, tmp_path: Path) -> None:
    """To machine code: whether it is right is for a machine of that kind to say."""
    from autotune.compiler import compile_functions
    from autotune.measure.kernel import split_packing
    from search_spaces.registry import default_candidate

    target = named(name, THREADS)
    models = [
        dense(13, 24, 40),
        attention(3, 10, 16, 24, True),
        convolution((9, 11), 3, 20, (3, 3), 2, (1, 1, 1, 1), 1, True),
        convolution((12, 12), 16, 30, (3, 3), 1, (1, 1, 1, 1), 1, True),
        grouped((8, 8), 4, 8, 8, 3, 1),
        depthwise((8, 8), 18, 3, 1, 1),
        pooling("max", (8, 8), 12, 2, 2, 0),
        softmax((3, 5), 37),
        layer_norm((6,), 48, True),
        concat((3, 4), (24, 16)),
        elementwise((2, 7, 19)),
    ]
    for model in models:
        for task in tasks_of(model, target):
            made = schedule(task, target, default_candidate(task, target))
            library = compile_functions(split_packing(made.module, task.workload).module, target)
            library.write_to_file(str(tmp_path / "kernel.o"), "o")
            assert (tmp_path / "kernel.o").stat().st_size > 0


@pytest.mark.parametrize("place", ["band", "whole"])
@pytest.mark.parametrize("blocked", [False, True])
def test_a_convolution_is_a_product_of_what_was_gathered(place: str, blocked: bool) -> None:
    from search_spaces.graph.layouts import LayoutSpace

    def model(m: Maker, x: Any) -> Any:
        from tvm import relax

        made = relax.op.nn.conv2d(x, m.weight(16, 8, 3, 3), strides=2, padding=[1, 1, 1, 1])
        return m.emit(relax.op.nn.relu(m.emit(made)))

    target, space = native(THREADS), TiledSpace()
    module = relax_model([(1, 8, 11, 9)], model)
    if blocked:
        (region, _) = LayoutSpace().parameters(module, target)
        module = LayoutSpace().apply(module, target, {region: "NCHWc", "block": 8})
    (task,) = [t for t in tasks_of(module, target) if "conv2d" in t.workload.name]
    chosen = {**space.default(task, target), "algorithm": "gemm", "padding": place}
    Judge(task, target).accept(candidate_of(space, chosen))
    with pytest.raises(InvalidParameters, match="gathered"):
        space.features(task, target, {**chosen, "padding": "inline"})
