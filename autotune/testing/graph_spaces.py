"""The contract of a graph space as a test suite: subclass it, give ``space`` and ``modules``.

class TestMySpace(GraphSpaceTestCase):
    @pytest.fixture
    def space(self):
        return MySpace()

    @pytest.fixture
    def modules(self):
        return [...]  # small IRModules, as a frontend makes them, in which it finds something
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from autotune.frontends.verify import TOLERANCE, scaled_error
from autotune.target import native
from search_spaces.graph.base import GraphSpace
from search_spaces.task import ParameterValue, Target


class GraphSpaceTestCase:
    """What every ``search_spaces.graph.base.GraphSpace`` must hold.

    ``draws`` is how many random choices are built and run for each module, beside the default.
    """

    draws: ClassVar[int] = 2
    tolerance: ClassVar[float] = TOLERANCE
    """How far results may be apart, as a share of the largest: more only where that is chosen."""

    @pytest.fixture
    def space(self) -> GraphSpace:
        """The space under test."""
        raise NotImplementedError("give a fixture `space`")

    @pytest.fixture
    def modules(self) -> Sequence[Any]:
        """Relax modules with a "main" of float32 tensors; a late space gets them laid out."""
        raise NotImplementedError("give a fixture `modules`")

    @pytest.fixture
    def target(self) -> Target:
        """A target that this machine can run."""
        return native()

    @pytest.fixture
    def found(self, space: GraphSpace, modules: Sequence[Any]) -> list[Any]:
        """The modules as the space sees them."""
        from autotune.graph.pipeline import lay_out, simplify

        early = [simplify(module) for module in modules]
        return [lay_out(module) for module in early] if space.laid_out else early

    def choices(
        self, space: GraphSpace, module: Any, target: Target
    ) -> list[dict[str, ParameterValue]]:
        """The default, and some at random."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        options = space.parameters(module, target)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [dict(study.ask(dict(options)).params) for _ in range(8 * self.draws)]
        made: list[dict[str, ParameterValue]] = [dict(space.default(module, target))]
        for choice in drawn:
            if choice not in made and len(made) <= self.draws:
                made.append(choice)
        return made

    def test_it_finds_something_to_choose(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """In every module; the default is one of the choices."""
        assert found, "a suite without modules shows nothing"
        for module in found:
            options, default = space.parameters(module, target), space.default(module, target)
            assert options and default.keys() == options.keys()
            for name, option in options.items():
                value: Any = default[name]
                assert option._contains(option.to_internal_repr(value)), f"{name}={value!r}"

    def test_it_is_stateless_and_deterministic(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """Equal modules and choices give equal modules, by another object too."""
        import tvm

        fresh = type(space)()
        told = (fresh.name, fresh.version, fresh.order, fresh.laid_out)
        assert told == (space.name, space.version, space.order, space.laid_out)
        for module in found:
            assert fresh.parameters(module, target) == space.parameters(module, target)
            for choice in self.choices(space, module, target):
                one, other = (s.apply(module, target, choice) for s in (space, fresh))
                tvm.ir.assert_structural_equal(one, other)

    def test_choices_survive_a_database(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """They are kept as JSON."""
        for module in found:
            for choice in self.choices(space, module, target):
                assert json.loads(json.dumps(choice)) == choice

    def test_what_it_is_given_stays_as_it_was(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """The module, whose inputs and outputs the result has as well."""
        import tvm

        for module in found:
            before = tvm.ir.load_json(tvm.ir.save_json(module))
            for choice in self.choices(space, module, target):
                made = space.apply(module, target, choice)
                tvm.ir.assert_structural_equal(module, before)
                for one, other in zip(made["main"].params, module["main"].params, strict=True):
                    tvm.ir.assert_structural_equal(one.ty, other.ty)
                tvm.ir.assert_structural_equal(made["main"].ret_ty, module["main"].ret_ty)

    def test_older_choices_can_be_applied(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """What is missing is as in the default, and what there is none of is passed over."""
        import tvm

        for module in found:
            plain = space.apply(module, target, dict(space.default(module, target)))
            for choice in ({}, {"no such place": True}):
                tvm.ir.assert_structural_equal(space.apply(module, target, choice), plain)

    def test_every_choice_computes_the_same(
        self, space: GraphSpace, found: Sequence[Any], target: Target
    ) -> None:
        """On random inputs, compiled as a model is, next to the module that was not changed."""
        for module in found:
            inputs = _inputs(module)
            expected = self.run(space, module, target, inputs)
            for choice in self.choices(space, module, target):
                made = space.apply(module, target, choice)
                for one, other in zip(expected, self.run(space, made, target, inputs), strict=True):
                    assert scaled_error(one, other) <= self.tolerance, choice

    def run(
        self, space: GraphSpace, module: Any, target: Target, inputs: Sequence[Any]
    ) -> list[Any]:
        """The outputs of ``module``, unscheduled."""
        import tvm
        from tvm import relax

        from autotune.graph.pipeline import fuse, lay_out

        place = tvm.target.Target(target.tvm())
        with place, tvm.transform.PassContext(opt_level=3):
            lowered = fuse(module if space.laid_out else lay_out(module), target)
        machine = relax.VirtualMachine(relax.build(lowered, place), tvm.cpu())
        result = machine["main"](*[tvm.runtime.tensor(array) for array in inputs])
        values = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [value.numpy() for value in values]


def _inputs(module: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    types: list[Any] = [parameter.ty for parameter in module["main"].params]
    return [
        rng.uniform(-1, 1, tuple(int(e) for e in kind.shape)).astype(str(kind.dtype))
        for kind in types
    ]
