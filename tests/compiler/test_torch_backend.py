"""torch.compile(model, backend="autotune") computes what eager PyTorch computes, or is eager."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import autotune.torch_backend  # noqa: E402, F401
from autotune.dynamo import graph, specialise  # noqa: E402
from tests.compiler import torch_models  # noqa: E402

OURS = "autotune leaves a graph"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    with torch.no_grad():
        yield


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were compiled and found right, in order."""
    found: list[Any] = []
    confirmed = specialise.Draft.confirmed

    def spy(self: Any, arguments: Any) -> Any:
        result, returned = confirmed(self, arguments)
        found.append(result)
        return result, returned

    monkeypatch.setattr(specialise.Draft, "confirmed", spy)
    return found


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, backend="autotune", options=options)


def said(call: Callable[[], Any]) -> list[str]:
    """What we warn of in a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if OURS in str(one.message)]


def check(function: Any, *inputs: Any, calls: int = 2) -> None:
    """Compare ``calls`` calls with eager: values, strides, and what was written to the inputs.

    The first call is eager's, with which the compiled graph is compared; later ones are ours.
    """
    ours = compiled(function)
    for _ in range(calls):
        theirs, mine = copy.deepcopy(inputs), copy.deepcopy(inputs)
        expected, found = function(*theirs), ours(*mine)
        for one, other in zip((*_leaves(expected), *theirs), (*_leaves(found), *mine), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
            assert other.stride() == one.stride()


def _leaves(tree: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(tree)


def test_a_model_is_compiled_once_and_called(made: list[Any]) -> None:
    module = torch_models.Convolutions().eval()
    assert not said(lambda: check(module, torch.randn(1, 3, 16, 16), calls=4))
    assert len(made) == 1


def test_a_decoder_writes_its_buffers_in_prefill_and_decode(made: list[Any]) -> None:
    eager = torch_models.Decoder().eval()
    module = copy.deepcopy(eager)
    ours = compiled(module)
    steps = [torch.arange(4), *(torch.tensor([place]) for place in range(4, 8))]
    for places in steps:
        ids = torch.randint(0, 64, (1, len(places)))
        torch.testing.assert_close(ours(ids, places), eager(ids, places), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(dict(module.named_buffers()), dict(eager.named_buffers()))
    assert [type(one).__name__ for one in made] == ["Specialised"] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_dtypes(dtype: Any, made: list[Any]) -> None:
    def function(x: Any) -> Any:
        return x.to(torch.float32) * 2, x, x.flatten().flip(0)

    check(function, torch.randn(3, 4).to(dtype))
    assert len(made) == 1


def test_float64_is_computed_in_float64(made: list[Any]) -> None:
    x = torch.randn(8, 8, dtype=torch.float64)
    ours = compiled(lambda x: torch.nn.functional.linear(x @ x, x))
    ours(x)
    torch.testing.assert_close(ours(x), (x @ x) @ x.t(), rtol=1e-12, atol=1e-12)
    assert len(made) == 1


def shares(x: Any) -> Any:
    """Outputs that are the input, views of it, a copy of it, and a turned result."""
    y = x * 2
    return x, x.view(-1)[2:], x.clone(), y.t(), y, 3, None


def writes(x: Any, z: Any) -> Any:
    """Swaps its inputs, and returns what they were."""
    old = x.clone()
    x.copy_(z)
    z.copy_(old)
    return old, x


def test_outputs_share_memory_as_eager_ones_do() -> None:
    x = torch.randn(3, 4)
    ours = compiled(lambda x: shares(x)[:4])
    ours(x)
    same, view, copied, turned = ours(x)
    assert same is x and turned.stride() == (1, 4)
    view.add_(1)
    assert torch.equal(x.view(-1)[2:], view) and not torch.equal(copied, x)


@pytest.mark.parametrize(
    "function",
    [lambda x, z: writes(x, z), lambda x, z: x.add_(1).mul_(z)],
    ids=["swap", "in place"],
)
def test_inputs_that_are_written_to(function: Any, made: list[Any]) -> None:
    check(function, torch.randn(3, 4), torch.randn(3, 4), calls=3)
    assert len(made) == 1


def test_inputs_that_overlap_are_left_to_eager(made: list[Any]) -> None:
    def function(x: Any, z: Any) -> Any:
        x.add_(1)
        return z * 2

    ours = compiled(function)
    for overlapping in (False, False, True, False):
        mine, theirs = torch.arange(8.0), torch.arange(8.0)
        pieces = [
            (all_[:4], all_[2:6] if overlapping else torch.ones(4)) for all_ in (mine, theirs)
        ]
        assert torch.equal(ours(*pieces[0]), function(*pieces[1]))
        assert torch.equal(mine, theirs)
    assert len(made) == 1


def test_graphs_break_and_go_on(made: list[Any]) -> None:
    def function(x: Any) -> Any:
        y = torch.relu(x) + 1
        torch._dynamo.graph_break()
        y.view(-1).add_(1)
        return y, y * 2

    check(function, torch.randn(3, 4))
    assert len(made) == 2


def test_new_shapes_are_compiled_for_until_there_are_too_many(made: list[Any]) -> None:
    ours = compiled(lambda x: torch.relu(x) * 2, specialisations=3)

    def call(rows: int) -> None:
        x = torch.randn(rows, 4)
        assert torch.equal(ours(x), torch.relu(x) * 2)

    assert not said(lambda: [call(rows) for rows in (3, 5, 6, 3, 5, 6)])
    (one,) = said(lambda: [call(rows) for rows in (7, 8, 7, 6)])
    # Three rows twice: TorchDynamo leaves the dimension open from the second size on.
    assert "compiled for 3 sets of shapes" in one and len(made) == 4


def test_changed_weights_are_seen(made: list[Any]) -> None:
    module = torch_models.Convolutions().eval()
    ours, image = compiled(module), torch.randn(1, 3, 16, 16)
    for change in (None, module.last.weight, module.norm.running_mean):
        if change is not None:
            change.mul_(2)
        for _ in range(2):
            torch.testing.assert_close(ours(image), module(image), rtol=1e-4, atol=1e-5)
    assert len(made) == 3


def test_what_cannot_be_compiled_is_eager_with_one_warning(made: list[Any]) -> None:
    ours = compiled(lambda x: x.bfloat16() + x.bfloat16())
    x = torch.randn(3)
    (one,) = said(lambda: [ours(x) for _ in range(3)])
    assert "bfloat16" in one and not made
    drawing = compiled(lambda x: x + torch.rand(3))
    (one,) = said(lambda: [drawing(x) for _ in range(3)])
    assert "random numbers" in one and not made


def test_gradients_are_eager() -> None:
    module = torch.nn.Linear(4, 3)
    ours = compiled(module)
    with torch.enable_grad():
        (one,) = said(lambda: ours(torch.ones(2, 4)).sum().backward())
    assert "torch.no_grad()" in one and module.weight.grad is not None


def test_inference_mode_is_taken(made: list[Any]) -> None:
    module = torch_models.Convolutions().eval()
    with torch.inference_mode():
        check(module, torch.randn(1, 3, 16, 16))
    assert [type(one).__name__ for one in made] == ["Specialised"]


def test_what_computes_something_else_is_never_used(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results_of = specialise.results_of
    monkeypatch.setattr(
        specialise, "results_of", lambda *given: [one + 1e-2 for one in results_of(*given)]
    )
    module = torch_models.Convolutions().eval()
    assert "differs from torch's" in said(lambda: check(module, torch.randn(1, 3, 16, 16)))[0]


def test_the_database_is_asked_and_tuned(tmp_path: Path) -> None:
    from autotune.database import open_database

    module = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU()).eval()
    path, x = tmp_path / "t.db", torch.randn(8, 32)
    ours = compiled(module, database=path, trials=2, threads=2)
    ours(x)
    torch.testing.assert_close(ours(x), module(x))
    with open_database(path, create=False) as opened:
        records = sum(run.trials_done for run in opened.runs())
    assert records == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trails": 3}, "no option trails"),
        ({"trials": 3}, "need a database"),
        ({"database": "/nowhere/t.db"}, "/nowhere/t.db"),
        ({"specialisations": 0}, "1 or more"),
    ],
)
def test_wrong_options_are_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=words):
        compiled(lambda x: x + 1, **options)(torch.ones(2))


def test_layers_of_one_code_have_weights_of_their_own(made: list[Any]) -> None:
    layers = [torch.nn.Linear(8, 8).eval() for _ in range(3)]

    @torch.compile(backend="autotune")
    def run(layer: Any, x: Any) -> Any:
        return layer(x).relu()

    x = torch.randn(2, 8)
    for _ in range(2):
        for layer in layers:
            torch.testing.assert_close(run(layer, x), layer(x).relu(), rtol=1e-4, atol=1e-5)
    assert len(made) == 3


def test_calls_from_several_threads(made: list[Any]) -> None:
    import threading

    captured = torch.fx.symbolic_trace(lambda x, weight: (torch.tanh(x @ weight), x + 1))
    weight = torch.nn.Parameter(torch.randn(16, 16))
    ours = graph.Graph(captured, specialise.Options())
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.no_grad():
            x = torch.randn(4, 16)
            for _ in range(20):
                if not torch.allclose(ours(x, weight)[0], torch.tanh(x @ weight), atol=1e-5):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(made) == 1
