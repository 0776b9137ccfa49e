"""Sums of products on whole tiles: right, and done by AMX where the target has it.

Where this processor has none its instructions are emulated: what runs is the code of the compiler.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from onnx import helper

from autotune.artifact.build import runnable
from autotune.frontends import import_model
from autotune.precision.agreement import check_meaning, without_instructions
from autotune.profile import peaks
from autotune.profile.peak_kernels import tile_sums
from search_spaces.base import SearchSpace
from search_spaces.cpu.dot import DOTS, Dot
from search_spaces.cpu.tile import COLUMNS, ROWS, Tiles, depth_of
from search_spaces.cpu.tiles import TileSpace
from search_spaces.registry import default_candidate
from search_spaces.scheduling import replay, schedule
from search_spaces.task import Target, Task
from tests.amx import REASON, Counter, emulated, runs_here, with_tiles
from tests.compiler.our_spaces import THREADS, OurSpace
from tests.compiler.test_halves import chosen, of_space
from tests.end_to_end.models import model, random_weights, transformer

pytestmark = pytest.mark.skipif(not runs_here(), reason=REASON)


@pytest.fixture(scope="module", autouse=True)
def amx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    with emulated(tmp_path_factory.mktemp("amx")) as counter:
        yield counter


def sums(path: Path) -> Path:
    """Windows with a border, a step and gaps, a residual, a strided 1x1, and columns to spare."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[2, 2, 2, 2], dilations=[2, 2]),
        node("Add", ["c2", "r1"], ["a2"]),
        node("Conv", ["a2", "w3"], ["c3"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Sigmoid", ["c3"], ["s3"]),
        node("Conv", ["a2", "w4"], ["c4"], strides=[2, 2]),
        node("Concat", ["s3", "c4"], ["y"], axis=1),
    ]
    weights = random_weights(
        w1=(40, 32, 3, 3), b1=(40,), w2=(40, 40, 3, 3), w3=(33, 40, 3, 3), w4=(64, 40, 1, 1)
    )
    return model(path, nodes, {"x": (1, 32, 12, 12)}, weights=weights)


def product(path: Path) -> Path:
    """Rows of a matrix, which are filled up to whole tiles and have one axis only."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model(path, nodes, {"x": (12, 40)}, weights=random_weights(w=(40, 96)))


KINDS = {"bfloat16": 2e-2, "bfloat16x3": 1e-4, "int8": 0.1}


@pytest.mark.parametrize(
    ("write", "kind"), [*((sums, kind) for kind in KINDS), (transformer, "bfloat16")]
)
def test_sums_of_tiles_are_what_they_mean(
    write: Any, kind: str, amx: Counter, tmp_path: Path
) -> None:
    imported, target = import_model(write(tmp_path / "m.onnx"), {}), with_tiles(2)
    made, mix = chosen(imported, target, kind)
    assert len(of_space(made, "cpu.tiles")) >= len(mix) - 1
    before = amx()
    check = check_meaning(imported, made, runnable(made))
    assert 0 < check.error < KINDS[kind]
    after = amx()
    if before is not None and after is not None:
        assert all(after[what] > before[what] for what in before)


def test_targets_without_them_never_see_the_choice(tmp_path: Path) -> None:
    imported = import_model(sums(tmp_path / "m.onnx"), {})
    whole = with_tiles()
    for missing in ({"+amx-tile"}, {"+amx-bf16", "+amx-int8"}):
        target = replace(whole, features=tuple(f for f in whole.features if f not in missing))
        made, mix = chosen(imported, target, "bfloat16")
        assert mix and not of_space(made, "cpu.tiles")
    assert not any("amx-" in f and "tile" not in f for f in without_instructions(whole).features)


def test_schedules_are_made_again_elsewhere(tmp_path: Path) -> None:
    """By a process that never made one of that shape."""
    imported, target = import_model(transformer(tmp_path / "m.onnx"), {}), with_tiles()
    made, _ = chosen(imported, target, "bfloat16")
    task = of_space(made, "cpu.tiles")[0]
    first = schedule(task, target, default_candidate(task, target))
    assert replay(task, target, first.trace).module.script() == first.module.script()
    code = """
import re, sys
from pathlib import Path
from search_spaces.cpu.tile_steps import register_tiles
from tvm.s_tir import TensorIntrin
trace = Path(sys.argv[1]).read_text()
register_tiles(trace)
for name in re.findall(r"autotune\\.tiles_\\w+", trace):
    TensorIntrin.get(name)
    print(name)
"""
    file = tmp_path / "trace.json"
    file.write_text(first.trace)
    child = subprocess.run(
        [sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True
    )
    assert len(child.stdout.split()) == 3


def test_the_shapes_are_those_of_the_manual() -> None:
    """Palette 1, then from byte 16 on bytes in a row, and from byte 48 on rows."""
    shapes = Tiles("bfloat16", 7, 2, 1).shapes
    assert len(shapes) == 64 and shapes[0] == 1 and not any(shapes[1:16])
    assert [int.from_bytes(shapes[i : i + 2], "little") for i in range(16, 32, 2)] == (
        [64] * 5 + [0] * 3
    )
    assert list(shapes[48:56]) == [7, 7, 7, 7, 16, 0, 0, 0]
    assert Tiles.named(Tiles("integer", 7, 2, 1).name) == Tiles("integer", 7, 2, 1)
    assert not Tiles("integer", 16, 2, 3).fits and Tiles("integer", 16, 2, 2).fits


@pytest.mark.parametrize("dot", DOTS.values(), ids=list(DOTS))
def test_the_kernel_of_the_peak_does_what_is_counted(dot: Dot, amx: Counter) -> None:
    """How fast is up to the processor."""
    tiles, target = Tiles(dot.kind, ROWS, 2, 2), with_tiles(2)
    given, once = peaks.tile_operands(target, tiles)
    kernel = tile_sums(target, tiles, 7)
    tensors = [tvm.runtime.tensor(array) for array in given]
    before = amx()
    kernel.function(*tensors)
    np.testing.assert_array_equal(tensors[-1].numpy(), 7 * once)
    after = amx()
    if before is not None and after is not None:
        each = ROWS * COLUMNS * depth_of(dot)
        assert (after["products"] - before["products"]) * each == 7 * once.size * depth_of(dot)


class TestTileSpace(OurSpace):
    candidates = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return TileSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        return with_tiles(THREADS)

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Task]:
        path = tmp_path_factory.mktemp("tiles") / "m.onnx"
        imported, target = import_model(sums(path), {}), with_tiles(THREADS)
        found = {}
        for kind in ("bfloat16", "int8"):
            made, _ = chosen(imported, target, kind)
            for task in of_space(made, "cpu.tiles"):
                # In whole numbers, what differs most from one tile to the next.
                if kind == "bfloat16" or "sigmoid" in task.workload.name:
                    found[task.workload.key] = task
        alone, _ = chosen(import_model(product(path), {}), target, "bfloat16")
        return [*found.values(), *of_space(alone, "cpu.tiles")]
