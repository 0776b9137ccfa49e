"""int8 models as exporters write them: right, and on kernels of whole numbers where there are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.artifact.build import runnable
from autotune.frontends import import_model
from autotune.frontends.sampling import random_inputs
from autotune.graph.model import FusedModel
from autotune.graph.pipeline import optimise
from autotune.steps import best_schedules
from autotune.target import named, native
from search_spaces.base import SearchSpace
from search_spaces.cpu.dot import INTEGER
from search_spaces.cpu.dots import IntegerSpace
from search_spaces.registry import default_candidate
from search_spaces.scheduling import schedule
from search_spaces.task import Target, Task
from tests.compiler.our_spaces import THREADS, OurSpace

needs_dots = pytest.mark.skipif(
    not INTEGER.lanes(native(1)), reason="this CPU has neither AVX-512 VNNI nor AVX-VNNI"
)


class Writer:
    """An ONNX model of dequantised tensors, by its parts."""

    def __init__(self, kind: Any, zero: int) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.rng = np.random.default_rng(0)
        self.kind, self.zero = kind, zero

    def tensor(self, array: Any) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def stored(self, x: str, scale: float) -> str:
        """``x`` through 8 bits."""
        told = self.tensor(np.float32(scale)), self.tensor(self.kind(self.zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *told), *told)

    def weight(self, shape: Sequence[int], axis: int, many: bool) -> tuple[str, np.ndarray]:
        """Stored weights with one scale, or one for each column; and the scales."""
        count = shape[axis] if many else 1
        scale = self.rng.uniform(0.005, 0.02, count).astype(np.float32)
        zero = np.zeros(count, np.int8)
        whole = self.rng.integers(-127, 128, shape).astype(np.int8)
        told = [self.tensor(v if many else v.reshape(())) for v in (scale, zero)]
        return self.node("DequantizeLinear", self.tensor(whole), *told, axis=axis), scale

    def bias(self, count: int, scale: np.ndarray, whole: bool) -> str:
        if not whole:
            return self.tensor(self.rng.normal(size=count).astype(np.float32))
        stored = self.tensor(self.rng.integers(-500, 500, count).astype(np.int32))
        scales = np.broadcast_to(scale, count).astype(np.float32).copy()
        zeros = self.tensor(np.zeros(count, np.int32))
        return self.node("DequantizeLinear", stored, self.tensor(scales), zeros, axis=0)

    def write(self, path: Path, shape: Sequence[int], result: str) -> Path:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
        y = helper.make_tensor_value_info(
            result, TensorProto.FLOAT, [f"d{i}" for i in range(len(shape))]
        )
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


STEP = 0.03
KINDS: dict[str, tuple[Any, int]] = {"uint8": (np.uint8, 121), "int8": (np.int8, 0)}


def convolution(path: Path, kind: str, shape: Sequence[int], outputs: int, window: int,
                many: bool = True, whole: bool = True, **attributes: Any) -> Path:  # fmt: skip
    """Q, DQ, Conv with bias, Relu, Q, DQ."""
    make = Writer(*KINDS[kind])
    weights = (outputs, shape[1] // attributes.get("group", 1), window, window)
    x = make.stored("x", STEP)
    w, scale = make.weight(weights, 0, many)
    made = make.node("Conv", x, w, make.bias(outputs, STEP * scale, whole), **attributes)
    return make.write(path, shape, make.stored(make.node("Relu", made), 0.4))


def product(path: Path, kind: str, rows: int, depth: int, columns: int, gemm: bool) -> Path:
    """Q, DQ, MatMul or Gemm of transposed weights, Q, DQ."""
    make = Writer(*KINDS[kind])
    x = make.stored("x", STEP)
    if gemm:
        w, scale = make.weight((columns, depth), 0, True)
        bias = make.bias(columns, STEP * scale, True)
        made = make.node("Gemm", x, w, bias, transB=1)
    else:
        w, scale = make.weight((depth, columns), 1, False)
        made = make.node("Add", make.node("MatMul", x, w), make.bias(columns, scale, False))
    return make.write(path, (rows, depth), make.stored(made, 0.4))


CASES: dict[str, tuple[Any, bool]] = {
    # By name: what writes it, and whether its sums are worth an instruction of their own.
    "3x3": (lambda p, k: convolution(p, k, (1, 16, 9, 11), 24, 3, pads=[1, 1, 1, 1]), True),
    "3x3, batch": (
        lambda p, k: convolution(p, k, (2, 8, 8, 8), 20, 3, whole=False, pads=[1, 0, 1, 2],
                                 strides=[2, 2]), True),
    "1x1": (lambda p, k: convolution(p, k, (1, 32, 7, 7), 40, 1, many=False), True),
    "1x1, stride": (lambda p, k: convolution(p, k, (1, 12, 8, 8), 16, 1, strides=[2, 2]), True),
    "stem": (lambda p, k: convolution(p, k, (1, 3, 17, 17), 24, 5, pads=[2, 2, 2, 2]), True),
    "narrow": (lambda p, k: convolution(p, k, (1, 16, 9, 9), 6, 3), False),
    "depthwise": (lambda p, k: convolution(p, k, (1, 16, 9, 9), 16, 3, group=16), False),
    "matmul": (lambda p, k: product(p, k, 13, 30, 40, False), True),
    "gemm": (lambda p, k: product(p, k, 1, 64, 20, True), True),
}  # fmt: skip


def compiled(path: Path, target: Target) -> tuple[FusedModel, Any, Any]:
    """The model, and what it and its original make of random inputs."""
    imported = import_model(path, {})
    fused = optimise(imported, target)
    inputs = random_inputs(imported.inputs, 1)
    return fused, runnable(fused, best_schedules(fused, None))(inputs), imported.reference(inputs)


def with_dots(fused: FusedModel) -> list[Task]:
    """The tasks that are scheduled with the instruction; raises what its schedule raises."""
    target, found = fused.target, []
    for task in fused.tasks:
        candidate = default_candidate(task, target)
        if candidate.space == "cpu.integer":
            schedule(task, target, candidate)
            found.append(task)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_a_quantised_model_is_right_to_the_step(name: str, kind: str, tmp_path: Path) -> None:
    write, dense = CASES[name]
    fused, found, expected = compiled(write(tmp_path / "m.onnx", kind), native(1))
    ((got, right),) = [(found[key], expected[key]) for key in expected]
    assert len(np.unique(right)) > 5
    assert np.abs(got - right).max() <= 0.4 * 1.001
    # A sum at the edge of two steps may be rounded either way, but there are few of them.
    assert np.mean(np.abs(got - right) > 0.2) < 0.01
    assert bool(with_dots(fused)) is (dense and bool(INTEGER.lanes(fused.target)))


@needs_dots
def test_vectors_of_256_bits_are_right_too(tmp_path: Path) -> None:
    here = native(1)
    if "+avxvnni" not in here.features:
        pytest.skip("this CPU has no AVX-VNNI")
    narrow = replace(here, cpu="x86-64-v3", features=tuple(
        feature for feature in here.features if "avx512" not in feature
    ))  # fmt: skip
    path = CASES["3x3"][0](tmp_path / "m.onnx", "uint8")
    fused, found, expected = compiled(path, narrow)
    assert INTEGER.lanes(narrow) == 8 and with_dots(fused)
    for name in expected:
        assert np.mean(np.abs(found[name] - expected[name]) > 0.2) < 0.01


def test_a_target_without_the_instruction_never_sees_it(tmp_path: Path) -> None:
    path = CASES["3x3"][0](tmp_path / "m.onnx", "uint8")
    for target in (named("x86-64-v3"), named("aarch64")):
        fused = optimise(import_model(path, {}), target)
        assert not INTEGER.lanes(target)
        assert not any(t.workload.name.startswith("integer") for t in fused.tasks)
        assert any(t.workload.name.startswith("conv2d") for t in fused.tasks)


@needs_dots
def test_a_record_is_replayed_by_who_never_made_such_a_schedule(tmp_path: Path) -> None:
    path, target = CASES["1x1"][0](tmp_path / "m.onnx", "uint8"), native(1)
    (task,) = with_dots(optimise(import_model(path, {}), target))
    trace = schedule(task, target, default_candidate(task, target)).trace
    (tmp_path / "trace.json").write_text(trace)
    code = """
import sys
from autotune.frontends import import_model
from autotune.graph.pipeline import optimise
from autotune.target import native
from search_spaces.scheduling import replay
target = native(1)
fused = optimise(import_model(sys.argv[1], {}), target)
(task,) = [t for t in fused.tasks if t.workload.name.startswith("integer")]
print(replay(task, target, open(sys.argv[2]).read()).module["main"].script())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "trace.json")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "vpdpbusd" in done.stdout


@needs_dots
class TestIntegerSpace(OurSpace):
    candidates = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return IntegerSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        return native(THREADS)

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Task]:
        folder = tmp_path_factory.mktemp("integers")
        found: dict[str, Task] = {}
        for number, name in enumerate(("3x3", "3x3, batch", "1x1", "stem", "matmul")):
            path = CASES[name][0](folder / f"{number}.onnx", "uint8")
            for task in with_dots(optimise(import_model(path, {}), target)):
                found[task.workload.key] = task
        return list(found.values())
