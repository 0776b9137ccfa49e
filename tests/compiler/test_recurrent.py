"""Recurrences as one function that loops: right, one task, and scheduled by a space of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autotune.frontends import ImportedModel, import_model, verify_import
from autotune.frontends.activations import NAMES
from autotune.frontends.recurrence import Recurrence, from_text
from autotune.frontends.recurrence_function import recurrent_function
from autotune.graph.pipeline import optimise
from autotune.measure.data import make_inputs
from autotune.target import named, native
from autotune.testing.spaces import Judge, candidate_of
from search_spaces.analysis import CONSTANTS, workload
from search_spaces.base import SearchSpace
from search_spaces.cpu.recurrent import RecurrentSpace, recurrent_of
from search_spaces.registry import default_candidate
from search_spaces.scheduling import schedule
from search_spaces.task import Target, Task
from tests.compiler.our_spaces import THREADS, OurSpace

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
SIGMOID, TANH = ("Sigmoid", 1.0, 1.0), ("Tanh", 1.0, 1.0)
USUAL = {"RNN": (TANH,), "GRU": (SIGMOID, TANH), "LSTM": (SIGMOID, TANH, TANH)}


def recurrence(operator: str, steps: int, batch: int, size: int, both: bool = False,
               **more: Any) -> Recurrence:  # fmt: skip
    directions = 2 if both else 1
    more.setdefault("activations", USUAL[operator] * directions)
    return Recurrence(operator, steps, batch, size, directions, **more)


def task_of(spec: Recurrence) -> Task:
    constants = list(range(1, 1 + len(spec.products)))
    work = workload(recurrent_function(spec).with_attr(CONSTANTS, constants), "recurrence")
    return Task(work, 1, 1e6, sum(argument.bytes for argument in work.arguments))


SPECS = {
    "lstm": recurrence("LSTM", 5, 1, 32),
    "lstm both": recurrence("LSTM", 4, 2, 20, True, peepholes=True, lengths=True),
    "lstm odd": recurrence("LSTM", 3, 3, 7, reverse=True, clip=0.4, coupled=True),
    "gru": recurrence("GRU", 6, 4, 24, lengths=True),
    "gru after": recurrence("GRU", 5, 2, 48, True, after=True),
    "rnn": recurrence("RNN", 9, 6, 40, activations=(("Relu", 1.0, 1.0),)),
}


class TestRecurrentSpace(OurSpace):
    candidates = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> SearchSpace:
        return RecurrentSpace()

    @pytest.fixture(scope="class")
    @classmethod
    def tasks(cls) -> Sequence[Task]:
        return [task_of(spec) for spec in SPECS.values()]


@pytest.fixture(scope="module")
def here() -> Target:
    return native(THREADS)


@pytest.mark.parametrize("name", SPECS)
def test_a_recurrence_is_known_by_its_sizes_and_by_its_text(name: str) -> None:
    spec = SPECS[name]
    found = recurrent_of(task_of(spec).workload)
    assert found is not None
    assert (found.steps, found.directions, found.batch) == (
        spec.steps, spec.directions, spec.batch
    )  # fmt: skip
    assert (found.size, found.columns, found.gates) == (spec.size, spec.wide, spec.products)
    assert from_text(spec.text()) == spec


@pytest.mark.parametrize("kind", ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_it_has_a_default_for_other_machines(kind: str) -> None:
    target, space = named(kind, THREADS), RecurrentSpace()
    for spec in SPECS.values():
        task = task_of(spec)
        assert schedule(task, target, candidate_of(space, space.default(task, target))).module


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_is_scheduled_right(name: str, here: Target) -> None:
    spec = recurrence("RNN", 4, 2, 16, activations=((name, 0.7, 0.3),))
    Judge(task_of(spec), here).accept(default_candidate(task_of(spec), here))


def test_sequences_are_tried_with_lengths_of_their_own() -> None:
    task = task_of(recurrence("GRU", 60, 8, 24, lengths=True))
    lengths = make_inputs(task.workload, "signed")[-1]
    assert lengths.max() > 30 and len(set(lengths.tolist())) > 3


def test_states_are_filled_up_to_vectors_where_that_costs_little() -> None:
    wide = {size: recurrence("RNN", 2, 1, size).wide for size in (1, 3, 4, 10, 20, 24, 100, 256)}
    assert wide == {1: 1, 3: 3, 4: 4, 10: 12, 20: 24, 24: 24, 100: 112, 256: 256}


# -- of a model


def model_of(
    folder: Path, operator: str, steps: int, batch: int, size: int, layers: int = 1, **more: Any
) -> Path:
    """A stack of recurrent nodes; its first states are inputs of the model, biases are there."""
    both = more.get("direction") == "bidirectional"
    directions, gates, width = 2 if both else 1, GATES[operator], 6
    rng = np.random.default_rng(3)
    tensors, nodes, name = {}, [], "x"
    reordered = more.get("layout", 0)
    for layer in range(layers):
        for kind, shape in (
            ("w", (directions, gates * size, width)),
            ("r", (directions, gates * size, size)),
            ("b", (directions, 2 * gates * size)),
        ):
            tensors[f"{kind}{layer}"] = rng.uniform(-1, 1, shape).astype(np.float32) / size**0.5
        outputs = [f"y{layer}", "last", *(["cell"] if operator == "LSTM" else [])]
        if layer < layers - 1:
            outputs = outputs[:1]
        given = [name, f"w{layer}", f"r{layer}", f"b{layer}"]
        if not layer:
            given += ["", "h"]
        nodes.append(helper.make_node(operator, given, outputs, hidden_size=size, **more))
        turned = helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3])
        wide = np.array([0, 0, -1])
        tensors["wide"] = wide
        name, width = f"z{layer}", directions * size
        if layer < layers - 1:
            nodes += [turned, helper.make_node("Reshape", [f"t{layer}", "wide"], [name])]
    x, h = (steps, batch, 6), (directions, batch, size)
    if reordered:
        x, h = (batch, steps, 6), (batch, directions, size)
    graph = helper.make_graph(
        nodes,
        operator,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("h", h))],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(value, n) for n, value in tensors.items()],
    )
    opset = [helper.make_opsetid("", 14)]
    proto = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opset, ir_version=8)
    )
    path = folder / "recurrent.onnx"
    onnx.save(proto, path)
    return path


def recurrent_task(model: ImportedModel, target: Target) -> Task:
    found = [t for t in optimise(model, target).tasks if recurrent_of(t.workload) is not None]
    assert len(found) == 1, "every layer or direction makes one kernel, of one kind here"
    return found[0]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize(("steps", "size"), [(2, 5), (40, 20), (2000, 16)])
def test_a_recurrent_model_is_right(
    tmp_path: Path, operator: str, direction: str, steps: int, size: int, here: Target
) -> None:
    path = model_of(tmp_path, operator, steps, 2, size, direction=direction)
    model = import_model(path)
    check = verify_import(model)
    assert check.engine == "onnxruntime" and check.error < 1e-5
    task = recurrent_task(model, here)
    assert RecurrentSpace().matches(task, here) and task.calls == 1
    found = recurrent_of(task.workload)
    assert found is not None
    least = 2 * found.steps * found.directions * found.products
    assert least <= task.flops < 4 * least + 400 * steps * 2 * 2 * found.columns
    Judge(task, here).accept(default_candidate(task, here))


@pytest.mark.parametrize("operator", GATES)
def test_batches_may_come_first(tmp_path: Path, operator: str) -> None:
    # ONNX Runtime has no such layout, so this is compared with the standard's reference.
    path = model_of(tmp_path, operator, 5, 3, 8, layout=1)
    check = verify_import(import_model(path))
    assert check.error < 1e-5


def test_layers_of_one_size_are_one_task_but_the_first(tmp_path: Path, here: Target) -> None:
    path = model_of(tmp_path, "LSTM", 30, 1, 16, layers=3, direction="bidirectional")
    model = import_model(path)
    assert verify_import(model).error < 1e-5
    tasks = [t for t in optimise(model, here).tasks if recurrent_of(t.workload) is not None]
    assert sum(task.calls for task in tasks) == 3


def test_a_long_recurrence_is_an_artifact_like_any_other(tmp_path: Path) -> None:
    import autotune

    path = model_of(tmp_path, "LSTM", 1500, 1, 24, direction="bidirectional")
    result = autotune.compile(path, output=tmp_path / "artifact", threads=1)
    assert result.check is not None and result.check.error < 1e-5
    again = autotune.reproduce(tmp_path / "artifact", path)
    assert again.same
