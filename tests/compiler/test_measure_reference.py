"""The reference is nearer to the truth than what it judges, and the tolerance fits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.measure.data import Array, make_inputs, poison
from autotune.measure.kernel import build_kernel
from autotune.measure.reference import Draw, compute_reference, compute_references
from autotune.measure.verify import compare, tolerance_of
from search_spaces.analysis import workload
from search_spaces.registry import matching
from search_spaces.scheduling import schedule
from search_spaces.task import Candidate, Task
from tests.compiler.measuring import host


def task_of(*tensors: Any, constants: tuple[int, ...] = ()) -> Task:
    """A task as the graph makes it: with its blocks read from the function."""
    from tvm import te

    function = te.create_prim_func(list(tensors)).with_attr("layout_free_buffers", constants)
    found = workload(function, "f")
    return Task(found, 1, 1.0, sum(t.bytes for t in found.arguments))


def matmul(depth: int, summed: int | None = None) -> Task:
    """C[32, 48] = A B; only the first ``summed`` of ``depth`` products are added."""
    from tvm import te

    a, b = te.placeholder((32, depth), name="A"), te.placeholder((depth, 48), name="B")
    r = te.reduce_axis((0, summed or depth), name="k")
    return task_of(a, b, te.compute((32, 48), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r)))


def conv() -> Task:
    from tvm import te, topi

    x, w = te.placeholder((1, 64, 14, 14), name="X"), te.placeholder((32, 64, 3, 3), name="W")
    return task_of(x, w, topi.nn.relu(topi.nn.conv2d(x, w, 1, 1, 1)), constants=(1,))


def softmax() -> Task:
    from tvm import te, topi

    x = te.placeholder((64, 96), name="X")
    return task_of(x, topi.nn.softmax(x))


def layer_norm() -> Task:
    from tvm import te, topi

    x, g, b = (
        te.placeholder(s, name=n) for s, n in (((32, 384), "X"), ((384,), "G"), ((384,), "B"))
    )
    return task_of(x, g, b, topi.nn.layer_norm(x, g, b, axis=[1], epsilon=1e-5))


def run(module: Any, task: Task, inputs: list[Array]) -> list[Array]:
    import tvm

    kernel = build_kernel(module, task.workload, host())
    output = tvm.runtime.tensor(poison(task.workload.arguments[-1]))
    kernel.function(*kernel.pack([*map(tvm.runtime.tensor, inputs), output]))
    return [output.numpy()]


def test_a_long_sum_is_as_exact_as_float32_can_say() -> None:
    task = matmul(4608)
    reference = compute_references(task, host(), 0)
    assert reference.precision == "float64"
    for draw, (got,) in reference.outputs.items():
        a, b = (x.astype(np.float64) for x in make_inputs(task.workload, draw.variant, draw.seed))
        np.testing.assert_allclose(got, a @ b, rtol=6e-8, atol=1e-12)
        assert got.dtype == np.float32


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sigmoid", "rsqrt", "log", "sqrt", "power"])
def test_functions_are_exact_too(name: str) -> None:
    import scipy.special
    from tvm import te, topi

    x = te.placeholder((64, 64), name="X")
    constant = 2.5
    ours: dict[str, Callable[[Any], Any]] = {"power": lambda t: topi.power(t, constant)}
    truth: dict[str, Callable[[Array], Array]] = {
        "erf": scipy.special.erf,
        "sigmoid": scipy.special.expit,
        "rsqrt": lambda a: 1 / np.sqrt(a),
        "power": lambda a: a**constant,
    }
    task = task_of(x, ours.get(name, getattr(topi, name))(x))
    reference = compute_references(task, host(), 0)
    assert reference.precision == "float64"
    draw, (got,) = next(iter(reference.outputs.items()))
    (a,) = make_inputs(task.workload, draw.variant, draw.seed)
    expected = truth.get(name, getattr(np, name, None))(a.astype(np.float64))  # type: ignore[misc]
    np.testing.assert_allclose(got, expected, rtol=1.2e-7, atol=1e-12)


def test_tricks_with_bits_are_run_as_they_are_written() -> None:
    from tvm import te, topi

    x = te.placeholder((8, 16), name="X")
    task = task_of(x, topi.fast_exp(x))
    reference = compute_references(task, host(), 0)
    assert reference.precision == "as written"
    (a,) = make_inputs(task.workload, "signed", 0)
    np.testing.assert_allclose(reference.outputs[Draw("signed", 0)][0], np.exp(a), rtol=1e-5)


def test_where_rounding_decides_between_two_steps_the_function_as_written_is_meant() -> None:
    """floor(x + 2**24) in float32 is never odd; in float64 it may be."""
    from tvm import te, tirx

    x = te.placeholder((8, 16), name="X")
    big = tirx.const(2.0**24, "float32")
    steps = te.compute((8, 16), lambda i, j: te.floor(x[i, j] * 8.0 + big) - big)
    task = task_of(x, steps)
    reference = compute_references(task, host(), 0)
    assert reference.precision == "as written"
    assert not np.any(reference.outputs[Draw("signed", 0)][0] % 1 != 0)


def test_integers_alone_are_run_as_they_are_written() -> None:
    from tvm import te

    x = te.placeholder((8, 16), name="X", dtype="int8")
    task = task_of(x, te.compute((8, 16), lambda i, j: x[i, j].astype("int32") * 3))
    assert compute_references(task, host(), 0).precision == "as written"


def test_later_draws_are_fresh_and_extreme() -> None:
    reference = compute_references(softmax(), host(), 3)
    first, fresh, *extremes = reference.outputs
    assert (first, fresh) == (Draw("signed", 3), Draw("signed", 4))
    assert [draw.variant for draw in extremes] == ["zeros", "wide"]
    assert not np.array_equal(reference.outputs[first][0], reference.outputs[fresh][0])
    assert all(np.isfinite(out).all() for (out,) in reference.outputs.values())


def test_extremes_on_which_right_programs_differ_are_left_out() -> None:
    """1 / 0 is infinite; exp(exp(x)) overflows in float32 and not in float64."""
    from tvm import te, topi

    x = te.placeholder((8, 16), name="X")
    one = te.compute((8, 16), lambda i, j: 1.0 / x[i, j])
    assert [d.variant for d in compute_references(task_of(x, one), host(), 0).outputs] == [
        "signed",
        "signed",
    ]
    towers = task_of(x, topi.exp(topi.exp(x)))
    kept = [d.variant for d in compute_references(towers, host(), 0).outputs]
    assert kept == ["signed", "signed", "zeros"]


@pytest.mark.parametrize("make", [lambda: matmul(4608), conv, softmax, layer_norm])
def test_right_schedules_pass_with_a_margin_of_four(make: Callable[[], Task]) -> None:
    task = make()
    tolerance = tolerance_of(task.workload)
    reference = compute_references(task, host(), 0)
    spaces = list(matching(task, host()))
    assert spaces
    for space in spaces:
        candidate = Candidate(space.name, space.version, space.default(task, host()))
        module = schedule(task, host(), candidate).module
        for draw, expected in reference.outputs.items():
            inputs = make_inputs(task.workload, draw.variant, draw.seed)
            found = compare(run(module, task, inputs), expected, tolerance)
            assert found.error <= tolerance / 4, (space.name, draw, found)


def test_one_product_of_4608_left_out_is_seen() -> None:
    import tvm

    task, short = matmul(4608), matmul(4608, 4607)
    variant, expected = compute_reference(task, host(), 0)
    module = tvm.ir.load_json(short.workload.function)
    got = run(module, task, make_inputs(task.workload, variant, 0))
    found = compare(got, expected, tolerance_of(task.workload))
    assert not found.right and found.error > 4 * found.tolerance
