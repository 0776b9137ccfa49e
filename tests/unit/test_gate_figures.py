"""The benchmark of the gate: its slower model computes the same, and its shares are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from benchmarks.gate import LAYERS, chain, share, told


def test_the_slower_chain_computes_the_same_by_one_convolution_more(tmp_path: Path) -> None:
    found = []
    for extra in (0, 1):
        path = chain(tmp_path / f"{extra}.onnx", extra)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        x = np.random.default_rng(0).standard_normal(given.shape).astype("float32")
        found.append(session.run(None, {"x": x})[0])
    assert np.ptp(found[0]) > 0.01, "outputs that are all alike would show nothing"
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    sizes = [(tmp_path / f"{extra}.onnx").stat().st_size for extra in (0, 1)]
    assert sizes[1] / sizes[0] == pytest.approx(1 + 1 / LAYERS, rel=1e-3)


def test_shares_have_their_interval() -> None:
    assert share([False] * 10) == {
        "share": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.3085, abs=1e-3),
    }
    half = share([True, False] * 25)
    assert half["low"] < half["share"] == 0.5 < half["high"]


def test_checks_are_told_by_figure() -> None:
    def row(change: float, worse: list[str]) -> dict[str, Any]:
        findings = [{"figure": "p50", "change": change}, {"figure": "size", "change": 0.0}]
        return {"findings": findings, "worse": worse, "seconds": 1.0}

    found = told([row(0.05, ["p50"]), row(0.01, []), row(0.04, ["size"]), row(0.06, ["p50"])])
    assert found["any"]["share"] == 0.75
    assert found["worse"]["p50"]["share"] == 0.5
    assert found["p50_change"] == {"median": pytest.approx(0.045), "least": 0.01, "most": 0.06}
