"""Sums of bfloat16 numbers: right, and on kernels of such numbers where the target has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from autotune.artifact.build import runnable
from autotune.frontends import import_model
from autotune.frontends.base import ImportedModel
from autotune.frontends.sampling import random_inputs
from autotune.graph.choices import choose
from autotune.graph.model import FusedModel
from autotune.graph.pipeline import fused, lay_out, simplified
from autotune.graph.probe import Probe
from autotune.measure.data import make_inputs
from autotune.measure.verify import compare_outputs, tolerance_of
from autotune.precision.agreement import check_meaning, without_instructions
from autotune.target import named, native
from autotune.testing import GraphSpaceTestCase
from search_spaces.base import SearchSpace
from search_spaces.cpu.dot import BFLOAT16
from search_spaces.cpu.dots import BFloat16Space
from search_spaces.graph.precision import PrecisionSpace, Rounding, places
from search_spaces.graph.rewriting import Graph
from search_spaces.precisions import HALF_ALONE, kinds_of
from search_spaces.registry import default_candidate
from search_spaces.task import Target, Task
from tests.compiler.models import Maker, relax_model
from tests.compiler.our_spaces import THREADS, OurSpace
from tests.end_to_end.models import cnn, model, random_weights, transformer

needs_bfloat16 = pytest.mark.skipif(
    not BFLOAT16.lanes(native(1)), reason="this CPU has no AVX-512 BF16"
)


def convolutions(path: Path) -> Path:
    """A stem of few channels, a residual block, a strided 1x1 and a product; no multiple of 16."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 0, 1, 2]),
        node("Add", ["c2", "r1"], ["a2"]),
        node("Conv", ["a2", "w3"], ["c3"], strides=[2, 2]),
        node("Sigmoid", ["c3"], ["s3"]),
        node("Flatten", ["s3"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    weights = random_weights(
        w1=(24, 3, 3, 3), b1=(24,), w2=(24, 24, 3, 3), w3=(33, 24, 1, 1), w4=(20, 33 * 9), b4=(20,)
    )
    weights["w2"] = weights["w2"][..., :3]
    return model(path, nodes, {"x": (1, 3, 10, 10)}, weights=weights)


def chosen(imported: ImportedModel, target: Target, kind: str) -> tuple[FusedModel, dict[str, str]]:
    """The model with every sum of ``kind``, whose ranges are those of random inputs."""
    probe = Probe(imported, target, [kind])
    probe.watch([random_inputs(imported.inputs, 0)])
    mix = {name: probe.value(name, kind) for name in probe.places}
    module = simplified(imported, target)
    made = choose(module, target, None, lay_out, PrecisionSpace(mix))
    return fused(imported, target, *made), mix


def of_space(model: FusedModel, space: str) -> list[Task]:
    """The tasks that ``space`` schedules by default."""
    return [t for t in model.tasks if default_candidate(t, model.target).space == space]


KINDS = {"bfloat16": 2e-2, "bfloat16x3": 1e-4, "int8": 0.1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", [convolutions, cnn, transformer])
def test_rounded_sums_are_what_they_mean(kind: str, write: Any, tmp_path: Path) -> None:
    """On this machine, and on a target without instructions for them."""
    imported = import_model(write(tmp_path / "m.onnx"), {})
    for target in (native(1), without_instructions(native(1))):
        made, mix = chosen(imported, target, kind)
        assert mix and set(made.choices["spaces"]["graph.precision"]["parameters"]) == set(mix)
        check = check_meaning(imported, made, runnable(made))
        assert 0 < check.error < KINDS[kind]


@needs_bfloat16
def test_they_are_kernels_of_the_instruction(tmp_path: Path) -> None:
    imported = import_model(convolutions(tmp_path / "m.onnx"), {})
    made, mix = chosen(imported, native(1), "bfloat16")
    assert len(of_space(made, "cpu.bfloat16")) == len(mix) == 4
    # What follows a sum is a part of its kernel, to the end of which its result is rounded.
    assert any("relu" in t.workload.name and t.workload.outputs == 1 for t in made.tasks)


def test_a_target_without_the_instruction_has_no_such_kernels(tmp_path: Path) -> None:
    imported = import_model(convolutions(tmp_path / "m.onnx"), {})
    for target in (named("x86-64-v3"), named("aarch64")):
        assert kinds_of(target) == ()
        made, _ = chosen_for(imported, target)
        assert not any(
            "bfloat" in t.workload.name and "conv" in t.workload.name for t in made.tasks
        )


def chosen_for(imported: ImportedModel, target: Target) -> tuple[FusedModel, Any]:
    module = simplified(imported, target)
    laid = choose(module, target, {}, lay_out)[0]
    mix = dict.fromkeys(places(Graph(laid)), "bfloat16")
    made = choose(module, target, {PrecisionSpace.name: {"version": 1, "parameters": mix}}, lay_out)
    return fused(imported, target, *made), made


@needs_bfloat16
def test_a_wrong_result_is_seen_as_such(tmp_path: Path) -> None:
    """The tolerance is of float32 sums, not of the two or three digits that the data has."""
    imported = import_model(convolutions(tmp_path / "m.onnx"), {})
    made, _ = chosen(imported, native(1), "bfloat16")
    rng = np.random.default_rng(0)
    for task in of_space(made, "cpu.bfloat16"):
        work, last = task.workload, task.workload.arguments[-1]
        kind = ml_dtypes.bfloat16 if last.dtype == "uint16" else np.float32
        values = rng.uniform(-1, 1, last.shape)
        right, off = (v.astype(kind).view(last.dtype) for v in (values, values * 1.02))
        assert compare_outputs(work, [right], [right], tolerance_of(work)).right
        assert not compare_outputs(work, [off], [right], tolerance_of(work)).right


@needs_bfloat16
def test_candidates_are_tried_on_numbers(tmp_path: Path) -> None:
    """Any 16 bits may be infinite, or no number."""
    imported = import_model(convolutions(tmp_path / "m.onnx"), {})
    made, _ = chosen(imported, native(1), "bfloat16")
    for task in of_space(made, "cpu.bfloat16"):
        given = [a for a in make_inputs(task.workload, "wide", 1) if a.dtype == np.uint16]
        assert given
        for array in given:
            assert np.isfinite(array.view(ml_dtypes.bfloat16).astype(np.float32)).all()


def test_a_probe_computes_what_a_build_does(tmp_path: Path) -> None:
    """For a mix of precisions that no build was made for."""
    imported, target = import_model(convolutions(tmp_path / "m.onnx"), {}), native(1)
    probe = Probe(imported, target, ["int8", "bfloat16", "bfloat16x3"])
    sample = random_inputs(imported.inputs, 0)
    probe.watch([sample])
    kinds = ["bfloat16", "int8", "float32", "bfloat16x3"]
    mix = {n: probe.value(n, k) for n, k in zip(probe.places, kinds, strict=True) if k != "float32"}
    module = simplified(imported, target)
    built = runnable(
        fused(imported, target, *choose(module, target, None, lay_out, PrecisionSpace(mix)))
    )
    one, other = probe.outputs(mix, sample)["y"], built(sample)["y"]
    full = imported.reference(sample)["y"]
    lost = np.linalg.norm(other - full)
    assert lost > 0 and np.linalg.norm(one - other) <= 0.2 * lost
    np.testing.assert_allclose(probe.outputs({}, sample)["y"], full, rtol=1e-4, atol=1e-5)


def test_others_may_read_what_was_not_rounded(tmp_path: Path) -> None:
    """A residual keeps its digits, so less is lost; a probe computes that as a build does."""
    imported, target = import_model(convolutions(tmp_path / "m.onnx"), {}), native(1)
    probe = Probe(imported, target, ["bfloat16"])
    assert [place.shared for place in probe.places.values()] == [False, True, False, False]
    sample = random_inputs(imported.inputs, 0)
    full = imported.reference(sample)["y"]
    lost = []
    for kind in ("bfloat16", HALF_ALONE):
        mix = {name: kind for name, place in probe.places.items() if place.shared}
        module = simplified(imported, target)
        made = choose(module, target, None, lay_out, PrecisionSpace(mix))
        found = runnable(fused(imported, target, *made))(sample)["y"]
        lost.append(np.linalg.norm(found - full))
        assert np.linalg.norm(probe.outputs(mix, sample)["y"] - found) <= 0.2 * lost[-1]
    assert 0 < lost[1] < lost[0]


def test_values_of_a_place_are_text() -> None:
    one = Rounding.parse("int8 -1.5 6.25")
    assert str(one) == "int8 -1.5 6.25" and one.zero == 49
    assert str(Rounding.parse(HALF_ALONE)) == HALF_ALONE
    for text in ("int8", "bfloat16 1 2", "float32", "half"):
        with pytest.raises(ValueError):
            Rounding.parse(text)


class EverywhereHalf(PrecisionSpace):
    """As a plan that allows bfloat16 in every place."""

    def default(self, module: Any, target: Target) -> dict[str, Any]:
        return dict.fromkeys(places(Graph(module)), "bfloat16")


class TestPrecisionSpace(GraphSpaceTestCase):
    tolerance = 2e-2

    @pytest.fixture
    def space(self) -> Any:
        return EverywhereHalf()

    @pytest.fixture
    def modules(self) -> Any:
        def products(m: Maker, x: Any) -> list[Any]:
            from tvm import relax

            hidden = m.emit(relax.op.nn.relu(m.emit(relax.op.matmul(x, m.weight(16, 24)))))
            first = m.emit(relax.op.matmul(hidden, m.weight(24, 16)))
            return [first, m.emit(relax.op.add(first, x))]

        return [relax_model([(4, 16)], products)]


@needs_bfloat16
class TestBFloat16Space(OurSpace):
    candidates = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return BFloat16Space()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Task]:
        path = tmp_path_factory.mktemp("halves") / "m.onnx"
        made, _ = chosen(import_model(convolutions(path), {}), native(THREADS), "bfloat16")
        return of_space(made, "cpu.bfloat16")
