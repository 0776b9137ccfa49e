"""Elementary functions of our own: exact to a few units, and right at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.target import named
from search_spaces.task import Target
from tests.compiler.graphs import ops, same
from tests.compiler.models import Maker, lowered, relax_model, run


@pytest.fixture(scope="module")
def target() -> Target:
    return named("x86-64", 2)


def test_functions_of_our_own_are_exact_to_a_few_units(target: Target) -> None:
    from tvm import relax

    names = ["exp", "erf", "tanh", "sigmoid", "nn.silu", "nn.gelu", "nn.softplus", "log"]

    def model(make: Maker, x: Any) -> Any:
        found = [x]
        for name in names:
            made: Any = relax.op
            for part in name.split("."):
                made = getattr(made, part)
            argument = make.emit(relax.op.exp(x)) if name == "log" else x
            found.append(make.emit(made(argument)))
        return found

    x = np.concatenate([np.linspace(-20, 20, 4001), [-80, 80, 1e-6, -1e-6, 0, 1e-30]])
    x = x.astype("float32")
    _, *found = run(lowered(relax_model([x.shape], model), target), [x])
    from math import erf

    wide = x.astype(np.float64)
    errors = np.vectorize(erf)(wide)
    expected = {
        "exp": np.exp(wide),
        "erf": errors,
        "tanh": np.tanh(wide),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "nn.silu": wide / (1 + np.exp(-wide)),
        "nn.gelu": 0.5 * wide * (1 + np.vectorize(erf)(wide * 0.5**0.5)),
        "nn.softplus": np.logaddexp(0, wide),
        "log": np.log(np.maximum(found[0].astype(np.float64), 1e-300)),
    }
    for name, result in zip(names, found, strict=True):
        # exp loses bits in proportion to its argument; silu and gelu are as large as theirs.
        larger = np.maximum(1.0, np.abs(wide))
        scale = {"exp": expected[name] * larger, "nn.silu": larger, "nn.gelu": larger,
                 "nn.softplus": larger, "log": larger}.get(name, 1)  # fmt: skip
        error = np.abs((result - expected[name]) / scale).max()
        assert error < 5e-7, f"{name} is off by {error:.2g}"


def test_the_logarithm_is_right_at_its_edges(target: Target) -> None:
    from tvm import relax

    x = np.array(
        [
            0.0,
            -0.0,
            -1.0,
            np.inf,
            -np.inf,
            np.nan,
            1.0,
            1e-45,
            1e-40,
            1.1754944e-38,
            3.4e38,
            0.70710677,
        ],
        "float32",
    )
    module = relax_model([x.shape], lambda make, x: relax.op.log(x))
    (found,) = run(lowered(module, target), [x])
    with np.errstate(all="ignore"):
        expected = np.log(x.astype(np.float64)).astype("float32")
    np.testing.assert_allclose(found, expected, rtol=2e-7)


@pytest.mark.parametrize("spelled", ["softplus", "exp"])
def test_mish_is_one_function_of_the_exponential(spelled: str, target: Target) -> None:
    from tvm import relax

    from autotune.graph.mish import simplify_mish

    op = relax.op

    def model(make: Maker, x: Any) -> Any:
        if spelled == "softplus":
            grown = make.emit(op.nn.softplus(x))
        else:
            one = make.constant(1.0)
            grown = make.emit(op.log(make.emit(op.add(make.emit(op.exp(x)), one))))
        return op.multiply(x, make.emit(op.tanh(grown)))

    x = np.linspace(-40, 40, 4001).astype("float32")
    changed = simplify_mish(relax_model([x.shape], model))
    assert not {"relax.tanh", "relax.log", "relax.nn.softplus"} & set(ops(changed))
    (found,) = run(lowered(changed, target), [x])
    wide = x.astype(np.float64)
    expected = wide * np.tanh(np.logaddexp(0, wide))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-12)


def test_what_only_looks_like_mish_stays(target: Target) -> None:
    from tvm import relax

    from autotune.graph.mish import simplify_mish

    op = relax.op

    def model(make: Maker, x: Any) -> Any:
        grown = make.emit(op.log(make.emit(op.add(make.emit(op.exp(x)), make.constant(2.0)))))
        return op.multiply(x, make.emit(op.tanh(grown)))

    same(relax_model([(5,)], model), simplify_mish)


@pytest.mark.parametrize("axis", [-1, 1])
def test_log_softmax_takes_large_and_masked_scores(axis: int, target: Target) -> None:
    from tvm import relax

    module = relax_model([(3, 7, 33)], lambda make, x: relax.op.nn.log_softmax(x, axis=axis))
    x = np.random.default_rng(0).normal(0, 30, (3, 7, 33)).astype("float32")
    (found,) = run(lowered(module, target), [x])
    wide = x.astype(np.float64)
    shifted = wide - wide.max(axis=axis, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_softmax_takes_large_and_masked_scores(target: Target) -> None:
    from tvm import relax

    module = relax_model([(3, 33)], lambda make, x: relax.op.nn.softmax(x, axis=-1))
    x = np.random.default_rng(0).uniform(-300, 300, (3, 33)).astype("float32")
    x[1, 5:] = -np.inf
    x[2, ::2] = -1e9
    found = run(lowered(module, target), [x])[0]
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), rtol=2e-6, atol=1e-7)
