"""Make a specialised graph: export, compile, and compare with what eager PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autotune.dynamo.boundary import disjoint, givers, spans
from autotune.dynamo.options import Options
from autotune.dynamo.specialised import Specialised, results_of
from autotune.errors import ModelError
from autotune.frontends.base import ImportedModel
from autotune.frontends.verify import check_outputs, scaled_error

if TYPE_CHECKING:
    from autotune.graph.model import FusedModel
    from autotune.machine import Machine


DOUBLE = 1e-9
"""Largest error of float64, as a share of the largest magnitude."""


@dataclass(frozen=True)
class Draft:
    """A graph that was compiled and not compared yet.

    ``weights`` and ``given`` are positions of arguments: what is part of it, and what it takes.
    ``results`` names what it computes, ``returned`` which of those the graph returns (None for what
    is no tensor). ``builds`` compiles it, more carefully each time.
    """

    module: Callable[..., Any]
    weights: Collection[int]
    given: Sequence[int]
    imported: ImportedModel
    constant: Collection[str]
    results: Sequence[str]
    returned: Sequence[int | None]
    builds: Iterator[Machine]
    first: Machine

    def confirmed(self, arguments: Sequence[Any]) -> tuple[Specialised | ModelError, Any]:
        """Run eager PyTorch on ``arguments``, then what was compiled on copies of them.

        Returns what may be called from now on, or why nothing may, and what eager returned.
        """
        before = {i: arguments[i].detach().clone() for i in self.given}
        pairs = zip((spec.name for spec in self.imported.inputs), self.given, strict=True)
        places = dict(pairs)
        written = [(places[name], n) for n, name in enumerate(self.results) if name in places]
        ours = [arguments[i] for i in self.given]
        apart = disjoint([tensor.data_ptr() for tensor in ours], spans(ours))
        returned = tuple(self.module(*arguments))
        if written and not apart:
            return ModelError("it writes to an input that shares memory with another"), returned
        expected = {self.results[n]: arguments[i] for i, n in written}
        for value, n in zip(returned, self.returned, strict=True):
            if n is not None:
                expected[self.results[n]] = value
        try:
            outputs = givers(arguments, returned, self.returned)
        except ModelError as error:
            return error, returned
        machine: Machine | None = self.first
        failure = ModelError("it cannot be compiled")
        while machine is not None:
            values = results_of(machine, list(before.values()))
            try:
                self._check(before, expected, values)
            except ModelError as error:
                failure, machine = error, next(self.builds, None)
                continue
            shared = self._shared(before, values)
            return Specialised(machine, arguments, self.weights, written, shared, outputs), returned
        return failure, returned

    def _check(
        self, before: Mapping[int, Any], expected: Mapping[str, Any], values: Sequence[Any]
    ) -> None:
        names = (spec.name for spec in self.imported.inputs)
        inputs = {name: _array(one) for name, one in zip(names, before.values(), strict=True)}
        truth = {name: _array(value) for name, value in expected.items()}
        actual = {name: _array(one) for name, one in zip(self.results, values, strict=True)}
        check_outputs(self.imported, inputs, truth, actual)
        dtypes = {str(array.dtype) for array in (*inputs.values(), *truth.values())}
        if not dtypes & {"float32", "float16"}:
            for name, array in truth.items():
                # All in float64: what was computed in float32 on the way would show.
                if array.dtype == "float64" and scaled_error(array, actual[name]) > DOUBLE:
                    raise ModelError(f"{name} has not the precision of float64")

    def _shared(self, before: Mapping[int, Any], values: Sequence[Any]) -> list[int]:
        """Results that are inputs, weights or each other: the next call needs copies of them."""
        seen = {tensor.data_ptr() for tensor in before.values()}
        shared = []
        for n, (name, value) in enumerate(zip(self.results, values, strict=True)):
            if name in self.constant or value.data_ptr() in seen:
                shared.append(n)
            seen.add(value.data_ptr())
        return shared


def draft(
    module: Any, arguments: Sequence[Any], weights: Collection[int], options: Options
) -> Draft:
    """Compile ``module`` for ``arguments``, of which those in ``weights`` become part of it.

    Nothing is run. Raises a ``UserError`` that says why it cannot be compiled, and TVM's errors.
    """
    import torch

    from autotune.artifact.constants import constant_outputs
    from autotune.frontends.torch_export import exported, import_torch
    from autotune.frontends.torch_program import functional

    given = [
        i for i, one in enumerate(arguments) if isinstance(one, torch.Tensor) and i not in weights
    ]
    _check(arguments, given)
    with torch.inference_mode(False), torch.no_grad():
        program = exported(_bound(module, arguments, weights), [arguments[i] for i in given])
        pure = functional(program, "it")
        if pure.states:
            # What the graph itself writes to is no weight.
            names = {f"weight_{i}": i for i in weights}
            if not set(pure.states) <= set(names):
                raise ModelError("it writes to a constant of its own")
            kept = set(weights) - {names[name] for name in pure.states}
            return draft(module, arguments, kept, options)
        imported = import_torch(program, {})
    fused = _fused(imported, program, options)
    builds = _builds(fused, options)
    results = [name for name in pure.outputs if name is not None]
    returns = pure.outputs[len(pure.outputs) - program.call_spec.out_spec.num_leaves :]
    return Draft(
        module=module,
        weights=frozenset(weights),
        given=given,
        imported=imported,
        constant=constant_outputs(fused),
        results=results,
        returned=[None if name is None else results.index(name) for name in returns],
        first=next(builds),
        builds=builds,
    )


def _check(arguments: Sequence[Any], given: Sequence[int]) -> None:
    import torch

    tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ModelError("it is to be differentiated: call the model under torch.no_grad()")
    for tensor in tensors:
        if tensor.device.type != "cpu":
            raise ModelError(f"it has tensors on {tensor.device}: only those of the CPU are taken")
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
            raise ModelError(f"it has a tensor of class {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
            raise ModelError("it has a tensor that is not dense")


def _bound(module: Any, arguments: Sequence[Any], weights: Collection[int]) -> Any:
    """A module of the arguments that are tensors and no weights; the others are part of it."""
    import torch

    class Bound(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.graph = module
            for i in weights:
                self.register_buffer(f"weight_{i}", arguments[i].detach())

        def forward(self, *given: Any) -> Any:
            rest = iter(given)
            every = []
            for i, value in enumerate(arguments):
                if i in weights:
                    every.append(getattr(self, f"weight_{i}"))
                else:
                    every.append(next(rest) if isinstance(value, torch.Tensor) else value)
            return tuple(self.graph(*every))

    return Bound().eval()


def _fused(imported: ImportedModel, program: Any, options: Options) -> FusedModel:
    """The graph in tasks, by the choices that the database has; searched first where asked."""
    from autotune.graph.pipeline import optimise
    from autotune.graphs import kept_choices
    from autotune.steps import resolved_target

    target = resolved_target(options.target, options.threads)
    if options.tunes:
        from autotune.api import tune

        assert options.database is not None
        tune(
            program,
            target=target,
            trials=options.trials,
            seconds=options.seconds,
            database=options.database,
        )
    return optimise(imported, target, kept_choices(options.database, imported, target))


def _builds(fused: FusedModel, options: Options) -> Iterator[Machine]:
    """Builds for this process: by records, then with LLVM held back, then from defaults."""
    from autotune.artifact.build import executable
    from autotune.machine import Machine
    from autotune.steps import best_schedules

    schedules = best_schedules(fused, options.database)
    ways: list[tuple[Any, bool]] = [(schedules, False), (schedules, True)]
    if schedules:
        ways.append(({}, True))
    for chosen, safe in ways:
        yield Machine(executable(fused, chosen, safe), fused.target.threads)


def _array(tensor: Any) -> Any:
    return tensor.detach().numpy()
