"""How far an import may be from its original: of what an output is on plain inputs, at least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from autotune.errors import ModelError
from autotune.frontends.base import ImportedModel, TensorSpec
from autotune.frontends.verify import largest, scaled_error, verify_import

Arrays = Mapping[str, Any]


def closed(inputs: Arrays) -> dict[str, Any]:
    """A gate: up to a hundredth on plain inputs, a millionth where the inputs are extreme."""
    open_to = 1e-2 if np.abs(inputs["x"]).max() <= 1 else 1e-6
    return {"y": open_to * np.abs(inputs["x"]) / np.abs(inputs["x"]).max()}


def imported() -> ImportedModel:
    spec = TensorSpec("x", (4, 16), "float32"), TensorSpec("y", (4, 16), "float32")
    return ImportedModel("gate", "d" * 64, None, spec[:1], spec[1:], closed)


def off_by(apart: float) -> Any:
    return lambda model: lambda inputs: {"y": closed(inputs)["y"] + apart}


def test_rounding_is_of_what_an_output_can_be() -> None:
    assert verify_import(imported(), off_by(1e-7)).error == pytest.approx(1e-5, rel=0.01)
    with pytest.raises(ModelError, match="differs"):
        verify_import(imported(), off_by(1e-5))


def test_scales() -> None:
    assert largest(np.array([1.0, -3.0, math.inf, math.nan], "float32")) == 3.0
    assert largest(np.array([7])) == largest(np.array([], "float32")) == 0.0
    one, other = np.array([2.0], "float32"), np.array([1.0], "float32")
    assert scaled_error(one, other) == scaled_error(one, other, 1.0) == 0.5
    assert scaled_error(one, other, 4.0) == 0.25
