"""The observer: machine code that notes what a program calls, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.errors import ArtifactError
from autotune.machine import Machine
from autotune.profile import observe
from autotune.profile.observe import Observer
from autotune.target import native

TARGET = native(1)


@pytest.fixture(scope="module")
def machine() -> tuple[Machine, Any]:
    """A program of two kernels, and what it is called with."""
    import tvm
    from tvm import relax, te

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([256, 256], "float32"))

    def times_itself(a: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 256))
        return te.compute((256, 256), lambda i, j: te.sum(a[i, k] * a[k, j], axis=k))

    def next_to_nothing(a: te.Tensor) -> te.Tensor:
        return te.compute((1,), lambda i: a[i, i])

    with builder.function("main", [x]):
        product = builder.emit_te(times_itself, x, primfunc_name_hint="times_itself")
        end = builder.emit_te(next_to_nothing, product, primfunc_name_hint="next_to_nothing")
        builder.emit_func_output(end)
    program = relax.build(builder.get(), tvm.target.Target(TARGET.tvm()))
    return Machine(program, 1), tvm.runtime.tensor(np.ones((256, 256), "float32"))


def test_it_notes_what_a_program_calls(machine: tuple[Machine, Any]) -> None:
    program, given = machine
    observer = Observer(TARGET)
    program.observe(observer.function)
    told = [observer.inference(lambda: program(given)) for _ in range(2)]
    taken = observer.taken()
    assert [wall for wall, _ in taken] == told and observer.taken() == []
    for wall, calls in taken:
        kernels = [call for call in calls if not call.name.startswith("vm.builtin.")]
        assert [call.name for call in kernels] == ["times_itself", "next_to_nothing"]
        long, short = kernels
        assert 0 < long.begin < long.begin + long.seconds <= short.begin < wall
        assert 10 * short.seconds < long.seconds < wall
        assert sum(call.seconds for call in calls) < wall


def test_more_calls_than_fit_are_refused(
    machine: tuple[Machine, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, given = machine
    monkeypatch.setattr(observe, "EVENTS", 4)
    observer = Observer(TARGET)
    program.observe(observer.function)
    with pytest.raises(ArtifactError, match="more calls"):
        observer.inference(lambda: program(given))
