"""Our own plugins keep the contracts that others are asked to keep.

Search spaces and runners do so in tests/compiler, on many more tasks and faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.frontends.onnx import OnnxFrontend
from autotune.testing import (
    CostModelTestCase,
    FrontendTestCase,
    GraphSpaceTestCase,
    SamplerTestCase,
    SearchSpaceTestCase,
)
from cost_models.random import RandomModel
from cost_models.xgboost import XGBoostModel
from search_spaces.cpu.rowwise import RowwiseSpace
from tests.compiler.models import Maker, relax_model
from tests.end_to_end.models import layers


class TestXGBoost(CostModelTestCase):
    @pytest.fixture
    def model(self) -> Any:
        return XGBoostModel


class TestRandomModel(CostModelTestCase):
    learns = False

    @pytest.fixture
    def model(self) -> Any:
        return RandomModel


class TestSamplers(SamplerTestCase):
    @pytest.fixture(params=["cost-model:pool=64", "tpe", "random"])
    def sampler(self, request: pytest.FixtureRequest) -> Any:
        from functools import partial

        from autotune.search.samplers import sampler_choice

        chosen = sampler_choice(request.param)
        return partial(chosen.factory, **chosen.options)


class TestOnnx(FrontendTestCase):
    @pytest.fixture
    def frontend(self) -> OnnxFrontend:
        return OnnxFrontend()

    @pytest.fixture
    def sources(self, tmp_path: Path) -> Any:
        named = layers(tmp_path / "other.model")
        return [(layers(tmp_path / "open.onnx", ("n", 32)), {"x": (2, 32)}), (named, {})]


class TestParallelProducts(GraphSpaceTestCase):
    @pytest.fixture
    def space(self) -> Any:
        from search_spaces.graph.parallel import ParallelSpace

        return ParallelSpace()

    @pytest.fixture
    def modules(self) -> Any:
        return [relax_model([(4, 16)], products)]


class TestEdges(GraphSpaceTestCase):
    @pytest.fixture
    def space(self) -> Any:
        from search_spaces.graph.edges import EdgeSpace

        return EdgeSpace()

    @pytest.fixture
    def modules(self) -> Any:
        return [relax_model([(4, 16)], products)]


class TestRowwiseSpace(SearchSpaceTestCase):
    """With nothing but the space: on the usual tasks."""

    candidates = 1

    @pytest.fixture
    def space(self) -> Any:
        return RowwiseSpace()


def products(m: Maker, x: Any) -> list[Any]:
    from tvm import relax

    op = relax.op
    one, other = (m.emit(op.matmul(x, m.weight(16, columns))) for columns in (8, 12))
    gate = m.emit(op.nn.relu(m.emit(op.add(one, one))))
    return [m.emit(op.multiply(gate, m.emit(op.sigmoid(gate)))), m.emit(op.nn.relu(other))]
