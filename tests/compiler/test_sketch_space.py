"""TVM's sketch rules as a search space: what it offers, what it refuses, what it computes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from autotune.measure.data import make_inputs
from autotune.measure.kernel import build_kernel
from autotune.measure.verify import compare, tolerance_of
from search_spaces.analysis import workload
from search_spaces.base import InvalidParameters
from search_spaces.cpu.designs import designs_of, divisors, factorisations, sketches_of
from search_spaces.cpu.sketch import SketchSpace, _plan
from search_spaces.light import light_import
from search_spaces.registry import register, unregister
from search_spaces.scheduling import Scheduled, replay, schedule
from search_spaces.task import Candidate, Target, Task
from tests.compiler.measuring import host

SPACE = SketchSpace()
NAMES = ("matmul", "conv", "depthwise", "softmax", "pooling", "mean")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    light_import()
    register(SPACE)
    yield
    unregister(SPACE.name)


@pytest.fixture(scope="module")
def target() -> Target:
    return host(threads=1)


def task(name: str) -> Task:
    """A small task, lowered by TVM's own operators where there is one."""
    from tvm import te, topi

    if name == "matmul":
        a, b = te.placeholder((32, 48), name="a"), te.placeholder((48, 64), name="b")
        bias = te.placeholder((64,), name="bias")
        return made(name, [a, b, bias, topi.nn.relu(topi.add(topi.matmul(a, b), bias))], (1, 2))
    if name == "conv":
        x, w = te.placeholder((1, 14, 14, 8), name="x"), te.placeholder((3, 3, 8, 16), name="w")
        return made(name, [x, w, topi.nn.conv2d_nhwc(x, w, 1, 1, 1)], (1,))
    if name == "depthwise":
        x, w = te.placeholder((1, 12, 12, 16), name="x"), te.placeholder((3, 3, 16, 1), name="w")
        return made(name, [x, w, topi.nn.depthwise_conv2d_nhwc(x, w, 1, 1, 1)], (1,))
    x = te.placeholder((1, 12, 16, 24), name="x")
    result = {
        "softmax": lambda: topi.nn.softmax(x, axis=-1),
        "pooling": lambda: topi.nn.pool2d(x, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), "max"),
        "mean": lambda: topi.divide(topi.sum(x, axis=(1, 2)), 192.0),
        "elementwise": lambda: topi.tanh(topi.add(x, x)),
    }[name]()
    return made(name, [x, result])


def made(name: str, tensors: list[Any], constants: tuple[int, ...] = ()) -> Task:
    from tvm import te

    function = te.create_prim_func(tensors)
    if constants:
        function = function.with_attr("layout_free_buffers", list(constants))
    work = workload(function, name)
    return Task(work, 1, 1e6, sum(argument.bytes for argument in work.arguments))


def random_parameters(task: Task, target: Target, seed: int, count: int) -> list[dict[str, Any]]:
    """Points of the space that it does not refuse before a schedule is made."""
    options = SPACE.parameters(task, target)
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for _ in range(100 * count):
        point = {name: rng.choice(option.choices) for name, option in options.items()}
        try:
            SPACE.features(task, target, point)
        except InvalidParameters:
            continue
        found.append(point)
        if len(found) == count:
            break
    return found


def scheduled(task: Task, target: Target, parameters: dict[str, Any]) -> Scheduled:
    return schedule(task, target, Candidate(SPACE.name, SPACE.version, parameters))


def computed(task: Task, target: Target, made: Scheduled, inputs: list[Any]) -> Any:
    import tvm

    kernel = build_kernel(made.module, task.workload, target)
    last = task.workload.arguments[-1]
    output = tvm.runtime.tensor(np.full(last.shape, np.nan, last.dtype))
    tensors = [tvm.runtime.tensor(array) for array in inputs]
    kernel.function(*kernel.pack([*tensors, output]))
    return output.numpy()


def expected(name: str, inputs: list[Any]) -> Any:
    """The same in numpy's float64, from another description of the operator."""
    x, *rest = [array.astype(np.float64) for array in inputs]
    if name == "matmul":
        return np.maximum(x @ rest[0] + rest[1], 0)
    if name == "softmax":
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    if name == "mean":
        return x.mean((1, 2))
    if name == "pooling":  # the last two axes
        return x.reshape(1, 12, 8, 2, 12, 2).max((3, 5))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    high, wide = x.shape[1:3]
    shifted = [
        (padded[:, i : i + high, j : j + wide], rest[0][i, j]) for i in range(3) for j in range(3)
    ]
    if name == "conv":
        return sum(part @ weight for part, weight in shifted)
    return sum(part * weight[:, 0] for part, weight in shifted)


@pytest.mark.parametrize("name", [*NAMES, "elementwise"])
def test_a_trace_makes_the_same_schedule_again(name: str, target: Target) -> None:
    import tvm

    subject = task(name)
    points = [SPACE.default(subject, target), *random_parameters(subject, target, 1, 24)]
    replayed = 0
    for point in points:
        if replayed == 4:
            break
        try:
            first = scheduled(subject, target, point)
        except InvalidParameters:
            assert point is not points[0]
            continue
        tvm.ir.assert_structural_equal(replay(subject, target, first.trace).module, first.module)
        assert scheduled(subject, target, point).trace == first.trace
        replayed += 1
    assert replayed == min(4, len(points))


@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_computes_the_operator(name: str, target: Target) -> None:
    subject = task(name)
    inputs = make_inputs(subject.workload, "signed", 0)
    right = expected(name, inputs)
    right = right.reshape(subject.workload.arguments[-1].shape)
    verified = 0
    for point in [SPACE.default(subject, target), *random_parameters(subject, target, 2, 24)]:
        if verified == 4:
            break
        try:
            found = scheduled(subject, target, point)
        except InvalidParameters:
            continue
        result = computed(subject, target, found, inputs)
        check = compare([result], [right], tolerance_of(subject.workload))
        assert check.right, (point, check.message)
        verified += 1
    assert verified == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_a_point_of_the_space(name: str, target: Target) -> None:
    subject = task(name)
    assert SPACE.matches(subject, target)
    options = SPACE.parameters(subject, target)
    default = SPACE.default(subject, target)
    assert default.keys() == options.keys()
    assert all(default[key] in options[key].choices for key in options)
    assert all(np.isfinite(v) for v in SPACE.features(subject, target, default).values())


def test_nothing_to_decide_does_not_match(target: Target) -> None:
    assert not SPACE.matches(task("elementwise"), target)
    assert not SPACE.matches(task("matmul"), replace(target, kind="c"))


def test_a_workload_that_the_rules_cannot_take_does_not_match(target: Target) -> None:
    import tvm
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def twice(a: T.Buffer((8, 8), "float32"), b: T.Buffer((8,), "float32")) -> None:
        for i, j in T.grid(8, 8):
            with T.sblock("same"):
                x, y = T.axis.remap("SR", [i, j])
                with T.init():
                    b[x] = T.float32(0)
                b[x] = b[x] + a[x, y]
        for i in range(8):
            with T.sblock("same"):
                x = T.axis.spatial(8, i)
                b[x] = b[x] * T.float32(2)

    text = tvm.ir.save_json(tvm.IRModule({"main": twice}))
    base = task("matmul")
    strange = replace(base, workload=replace(base.workload, key="twice", function=text, blocks=()))
    assert not SPACE.matches(strange, target)
    assert sketches_of("twice", text, target).failure
    with pytest.raises(InvalidParameters, match="no design"):
        SPACE.default(strange, target)


def test_parameters_that_are_no_index_are_refused(target: Target) -> None:
    subject = task("matmul")
    good = SPACE.default(subject, target)
    for bad in ({**good, "tile0": 10**6}, {**good, "tile0": -1}, {**good, "tile0": True}, {}):
        with pytest.raises(InvalidParameters):
            SPACE.features(subject, target, bad)
        with pytest.raises(InvalidParameters):
            scheduled(subject, target, bad)


def test_different_points_make_different_schedules(target: Target) -> None:
    subject = task("conv")
    points = random_parameters(subject, target, 3, 12)
    distinct = {tuple(sorted({**point, "pack": False}.items())) for point in points}
    traces = []
    for point in distinct:
        try:
            traces.append(scheduled(subject, target, dict(point)).trace)
        except InvalidParameters:
            continue
    assert len(traces) >= 6
    assert len(set(traces)) == len(traces)


def test_only_constants_are_packed(target: Target) -> None:
    subject = task("matmul")
    point = SPACE.default(subject, target)
    inputs = subject.workload
    packed = build_kernel(scheduled(subject, target, point).module, inputs, target).split
    assert packed.pack is not None
    assert set(packed.positions) <= set(inputs.constants)
    plain = scheduled(subject, target, {**point, "pack": False})
    assert build_kernel(plain.module, inputs, target).split.pack is None
    variable = made("variable", _tensors(subject))
    assert "pack" not in SPACE.parameters(variable, target)


def _tensors(subject: Task) -> list[Any]:
    from tvm import te, topi

    first, second, *_ = subject.workload.arguments
    a, b = te.placeholder(first.shape, name="a"), te.placeholder(second.shape, name="b")
    return [a, b, topi.matmul(a, b)]


def test_serial_schedules_have_no_parallel_loop(target: Target) -> None:
    subject = task("matmul")
    point = SPACE.default(subject, target)
    assert "T.parallel" in scheduled(subject, target, {**point, "parallel": True}).module.script()
    serial = scheduled(subject, target, {**point, "parallel": False})
    assert "T.parallel" not in serial.module.script()


def test_every_head_and_value_decodes_to_legal_decisions(target: Target) -> None:
    subject = task("softmax")
    work = subject.workload
    slots = [design.slots for design in designs_of(work.key, work.function, target).designs]
    plan = _plan(subject, target)
    assert len({slots_of[0] for slots_of in plan.heads}) == len(slots)
    assert len(set(plan.heads)) == len(plan.heads) <= 1024
    default = SPACE.default(subject, target)
    for head in range(len(plan.heads)):
        design, decisions = plan.decode({**default, "design": head})
        for slot, decision in zip(slots[design], decisions, strict=True):
            assert decision in slot.values


def test_factorisations_are_all_there() -> None:
    found = list(factorisations(24, 3, 4))
    assert len(found) == len(set(found))
    wanted = {
        (a, b, c)
        for a in range(1, 25) for b in range(1, 25) for c in range(1, 5) if a * b * c == 24
    }  # fmt: skip
    assert set(found) == wanted
    assert list(factorisations(7, 2, 4)) == [(7, 1)]
    assert all(prod(tile) == 97 for tile in factorisations(97, 4, 64))
    assert divisors(36) == (1, 2, 3, 4, 6, 9, 12, 18, 36)
