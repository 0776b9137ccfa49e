"""The PyTorch frontend: a module, an exported program or a .pt2 file becomes a Relax module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, MissingDependency, ModelError
from autotune.frontends.base import Frontend, ImportedModel, TensorSpec, path_of
from autotune.frontends.onnx_file import first_line
from autotune.frontends.shapes import Declared, Shapes, fixed_shapes
from autotune.frontends.torch_program import Program, digest_of_program, functional

PASS_THROUGH = frozenset(
    ["view", "reshape", "unsqueeze", "squeeze", "flatten", "clone", "_to_copy", "to", "expand"]
)


class TorchFrontend(Frontend):
    """What torch.export makes, in memory or in a file."""

    name = "torch"
    reads = "programs of torch.export (.pt2)"

    def takes(self, source: Any) -> bool:
        """By the suffix, or the name of the class."""
        path = path_of(source)
        if path is not None:
            return path.suffix.lower() == ".pt2"
        return any(kind.__name__ == "ExportedProgram" for kind in type(source).__mro__)

    def load(self, source: Any, input_shapes: Shapes) -> ImportedModel:
        """See ``import_torch``."""
        return import_torch(source, input_shapes)


def require_torch() -> None:
    """Raise ``MissingDependency`` where torch is not installed."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingDependency(
            "models of PyTorch need torch, which is not installed: run pip install "
            "'autotune[torch]'"
        )


def exported(module: Any, example_inputs: Any) -> Any:
    """The ``torch.export.ExportedProgram`` of ``module``.

    ``example_inputs`` are what it is called with: a tensor, a sequence of arguments, or a mapping
    of arguments by name. Shapes are fixed to theirs. Raises ``InputError`` and ``ModelError``.
    """
    require_torch()
    import torch

    if isinstance(module, torch.export.ExportedProgram):
        if example_inputs is not None:
            raise InputError("an exported program has its inputs already: leave example_inputs out")
        return module
    name = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"a {name} is no model: give a path, a torch.nn.Module or an exported program"
        )
    if example_inputs is None:
        raise InputError(
            f"{name} is a module, whose inputs are unknown: give example_inputs=(tensor, ...)"
        )
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, Sequence):
        args = tuple(example_inputs)
    else:
        args = (example_inputs,)
    return _export(module, args, kwargs, name)


def import_torch(source: Any, input_shapes: Shapes) -> ImportedModel:
    """Import the .pt2 file ``source``, or an ``ExportedProgram``.

    ``input_shapes`` fixes the dimensions that it leaves open. Raises ``ModelError`` or
    ``InputError``, and ``MissingDependency`` without torch.
    """
    require_torch()
    from autotune.frontends.torch_reference import TorchReference

    if isinstance(source, str | Path):
        from autotune.frontends.torch_file import read_program

        name, program = Path(source).stem, read_program(Path(source))
    else:
        name, program = name_of(source), source
    program = _fixed(program, input_shapes, name)
    original = functional(program, name)
    module = _relax(program, name)
    inputs, notes = _inputs(original)
    return ImportedModel(
        name=name,
        digest=digest_of_program(program),
        module=module,
        inputs=inputs,
        outputs=_outputs(original),
        reference=TorchReference(original),
        notes=notes,
        samples=_samples(program, original),
        packages={"torch": "torch"},
    )


def digest_of_file(path: Path, input_shapes: Shapes) -> str:
    """The digest that ``import_torch`` gives the .pt2 file ``path``; raises what that does."""
    require_torch()
    from autotune.frontends.torch_file import read_program

    return digest_of_program(_fixed(read_program(path), input_shapes, path.stem))


def name_of(program: Any) -> str:
    """What an exported program is called: the class of the module that it was made of."""
    stacks = (node.meta.get("nn_module_stack") for node in program.graph.nodes)
    first = next((stack for stack in stacks if stack), None)
    if not first:
        return "model"
    kind = next(iter(first.values()))[1]
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _export(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    import torch

    try:
        with torch.no_grad():
            return torch.export.export(module, args, kwargs)
    except Exception as error:  # anything that a module raises, and torch's own
        raise ModelError(
            f"torch.export cannot capture {name} ({first_line(error)}): "
            "see what it needs in torch.export's documentation"
        ) from error


def _fixed(program: Any, shapes: Shapes, name: str) -> Any:
    """``program`` with every extent a number, exported once more where it was not."""
    import torch
    from torch.export.graph_signature import ConstantArgument, InputKind

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    declared: dict[str, Declared] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, ConstantArgument):
            value = nodes[spec.arg.name].meta["val"]
            if not isinstance(value, torch.Tensor):
                raise ModelError(
                    f"input {spec.arg.name} of {name} is a number that may change: export it with "
                    "a fixed one, or as a tensor"
                )
            extents = (e if isinstance(e, int) else None for e in value.shape)
            declared[spec.arg.name] = tuple(extents)
        elif spec.kind is InputKind.BUFFER and spec.target in shapes:
            declared[spec.target] = tuple(nodes[spec.arg.name].meta["val"].shape)
    fixed = fixed_shapes(declared, shapes)
    open_ones = [name for name, shape in declared.items() if shape and None in shape]
    if not open_ones:
        return program
    flat: list[Any] = []
    examples = _examples(program)
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            flat.append(spec.arg.value)
            continue
        place = spec.arg.name
        example = examples.get(place)
        if example is None or tuple(example.shape) != fixed[place]:
            example = torch.zeros(fixed[place], dtype=nodes[place].meta["val"].dtype)
        flat.append(example)
    args, kwargs = torch.utils._pytree.tree_unflatten(flat, program.call_spec.in_spec)
    return _export(program.module(), args, kwargs, name)


def _examples(program: Any) -> dict[str, Any]:
    """The example inputs that ``program`` was exported with, by placeholder."""
    import torch
    from torch.export.graph_signature import InputKind

    if program.example_inputs is None:
        return {}
    flat = torch.utils._pytree.tree_leaves(program.example_inputs)
    specs = program.graph_signature.input_specs
    places = [spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT]
    if len(places) != len(flat):
        return {}
    pairs = zip(places, flat, strict=True)
    return {place: value for place, value in pairs if isinstance(value, torch.Tensor)}


def _relax(program: Any, name: str) -> Any:
    """The Relax module, by few decompositions or by all of torch's; raises ``ModelError``."""
    import torch

    from autotune.frontends.torch_relax import decompositions, to_relax, unsupported_operators

    missing: dict[str, int] = {}
    failure: Exception | None = None
    for table in (decompositions(), torch.export.default_decompositions()):
        candidate = functional(program, name, table)
        missing = unsupported_operators(candidate)
        if missing:
            continue
        try:
            return to_relax(candidate)
        except Exception as error:  # TVM's importer fails in any way; the other form may do
            failure = failure or error
    if failure is None:
        listed = ", ".join(f"{op} ({count}×)" for op, count in sorted(missing.items()))
        raise ModelError(
            f"{name} uses operators that cannot be compiled: {listed}; write it without them"
        )
    raise ModelError(f"{name} cannot be imported ({first_line(failure)}): write it another way")


def _inputs(program: Program) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    upper = _index_bounds(program)
    specs = []
    for name, node in program.placeholders.items():
        specs.append(_spec("input", name, node.meta["val"], upper.get(name, 0)))
    notes = [f"input {place} is fixed at {value!r}" for place, value in program.fixed.items()]
    notes += [f"{state} is a state: pass its output on to the next call"
              for state in program.outputs if state in program.inputs.values()]  # fmt: skip
    return tuple(specs), tuple(notes)


def _outputs(program: Program) -> tuple[TensorSpec, ...]:
    output = list(program.graph.graph.nodes)[-1]
    specs = []
    for name, node in zip(program.outputs, output.args[0], strict=True):
        if name is not None:
            specs.append(_spec("output", name, node.meta["val"]))
    if not specs:
        raise ModelError(f"{program.name} returns no tensors: there is nothing to compile")
    return tuple(specs)


def _spec(what: str, name: str, value: Any, upper: int = 0) -> TensorSpec:
    import numpy as np
    import torch

    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        raise ModelError(f"{what} {name} is no dense tensor: only those can be compiled")
    if not all(isinstance(extent, int) for extent in value.shape):
        raise ModelError(f"the shape of {what} {name} depends on the data: cut the model before it")
    dtype = str(value.dtype).removeprefix("torch.")
    try:
        known = np.dtype(dtype).kind in "fiub"
    except TypeError:
        known = False
    if not known:
        raise ModelError(
            f"{what} {name} holds {dtype}, which numpy does not have: convert it inside the model"
        )
    return TensorSpec(name, tuple(value.shape), dtype, upper)


def _index_bounds(program: Program) -> dict[str, int]:
    """For each input that is looked up in tables: the size of the smallest one.

    Followed through operators that move values without changing them.
    """
    origin = {place: name for place, name in program.inputs.items()}
    bounds: dict[str, int] = {}
    for node in program.graph.graph.nodes:
        operator = str(node.target).removeprefix("aten.").partition(".")[0]
        sources = [getattr(argument, "name", "") for argument in node.args]
        if operator in PASS_THROUGH and sources and sources[0] in origin:
            origin[node.name] = origin[sources[0]]
        if operator == "embedding" and sources[1] in origin:
            name, size = origin[sources[1]], int(node.args[0].meta["val"].shape[0])
            bounds[name] = min(size, bounds.get(name, size))
    return bounds


def _samples(program: Any, original: Program) -> dict[str, Any]:
    """Values of inputs that random ones would not do for: those that count or point somewhere.

    What the program was exported with, and what its buffers hold.
    """
    import torch

    found = {}
    examples = {original.inputs.get(place): value for place, value in _examples(program).items()}
    specs = {name: node.meta["val"] for name, node in original.placeholders.items()}
    for name, value in (examples | dict(original.states)).items():
        if name not in specs or tuple(value.shape) != tuple(specs[name].shape):
            continue
        if not (value.is_floating_point() or value.is_complex()):
            if isinstance(value, torch._subclasses.FakeTensor):
                continue
            found[name] = value.detach().cpu().numpy().copy()
    return found
