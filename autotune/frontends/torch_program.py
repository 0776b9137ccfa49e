"""An exported program as a function: every state goes in and comes out, every tensor has a name.

torch.export lets a program write to its buffers and inputs. Here what is written to is an input as
well as an output of the same name: whoever runs the program passes it on from call to call.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.errors import ModelError


@dataclass(frozen=True)
class Program:
    """A functional graph of ATen operators.

    ``graph`` is a ``torch.fx.GraphModule`` whose placeholders are, by name, in ``bound`` (weights),
    ``fixed`` (values that are no tensors) or ``inputs`` (placeholder -> name for the user).
    ``outputs`` names what it returns, in order; None for a constant, which nobody needs.
    ``states`` are the current values of inputs that are buffers, by name.
    """

    name: str
    graph: Any = field(repr=False)
    bound: Mapping[str, Any] = field(repr=False)
    fixed: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: tuple[str | None, ...]
    states: Mapping[str, Any] = field(repr=False)

    @property
    def placeholders(self) -> dict[str, Any]:
        """The placeholder of each input, by its name for the user."""
        nodes = {node.name: node for node in self.graph.graph.nodes if node.op == "placeholder"}
        return {name: nodes[place] for place, name in self.inputs.items()}


def functional(exported: Any, name: str, decompositions: Any = None) -> Program:
    """The ``torch.export.ExportedProgram`` ``exported`` without side effects.

    ``decompositions`` is a table of operators to take apart, by default none is. Raises
    ``ModelError`` for what cannot be a function of tensors.
    """
    from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates what torch itself uses
        pure = exported.run_decompositions({} if decompositions is None else decompositions)
    signature = pure.graph_signature
    written = {
        spec.target
        for spec in signature.output_specs
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)
    }
    bound: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    states: dict[str, Any] = {}
    for spec in signature.input_specs:
        place = spec.arg.name
        if isinstance(spec.arg, ConstantArgument):
            fixed[place] = spec.arg.value
        elif spec.kind is InputKind.USER_INPUT:
            inputs[place] = place
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            kept = pure.state_dict if spec.target in pure.state_dict else pure.constants
            if spec.target in written:
                inputs[place] = spec.target
                states[spec.target] = kept[spec.target].detach()
            else:
                bound[place] = kept[spec.target].detach()
        else:
            raise ModelError(f"{name} takes {spec.target}, an object that is no tensor: leave it")
    if len(set(inputs.values())) < len(inputs):
        raise ModelError(f"{name} has a buffer and an input of the same name: rename one of them")
    outputs: list[str | None] = []
    returned = iter(output_names(exported.call_spec.out_spec))
    for spec in signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            outputs.append(spec.target)
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            outputs.append(inputs[spec.target])
        elif spec.kind is OutputKind.USER_OUTPUT:
            told = next(returned)
            outputs.append(None if isinstance(spec.arg, ConstantArgument) else told)
        else:
            raise ModelError(f"{name} returns gradients or tokens: export its forward pass alone")
    named = [output for output in outputs if output is not None]
    if len(set(named)) < len(named):
        raise ModelError(f"{name} has outputs of the same name ({', '.join(named)}): rename them")
    _check(pure.graph_module, name)
    return Program(name, pure.graph_module, bound, fixed, inputs, tuple(outputs), states)


def output_names(spec: Any) -> list[str]:
    """Names of the leaves of what a program returns: keys of dicts, ``output_N`` elsewhere."""
    from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

    paths, _ = tree_flatten_with_path(tree_unflatten(range(spec.num_leaves), spec))
    names = []
    for path, _ in paths:
        parts = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
        positional = not parts or parts[0].isdigit()
        names.append("_".join(["output", *(parts or ["0"])] if positional else parts))
    return names


def _check(graph: Any, name: str) -> None:
    import torch

    for node in graph.graph.nodes:
        if node.op == "get_attr":
            raise ModelError(
                f"{name} chooses between graphs while it runs (torch.cond or a loop), which cannot "
                "be compiled: export it without that"
            )
        tags = getattr(node.target, "tags", ()) if node.op == "call_function" else ()
        if torch.Tag.nondeterministic_seeded in tags and not _idle(node):
            raise ModelError(
                f"{name} draws random numbers ({node.target}), which cannot be compared: call "
                "eval() on the module before it is exported"
            )


def _idle(node: Any) -> bool:
    """Whether a node that could draw random numbers is told not to: no dropout, or no training."""
    schema = node.target._schema
    given = {argument.name: argument.default_value for argument in schema.arguments}
    given |= dict(zip(given, node.args, strict=False)) | dict(node.kwargs)
    chances = [given[name] for name in ("dropout_p", "dropout", "p") if name in given]
    trained = [given[name] for name in ("train", "training") if name in given]
    return chances == [0] or trained == [False]


def digest_of_program(exported: Any) -> str:
    """Digest of graph, names, shapes and weights: equal for a module and the file it is saved to.

    Equal in every process; another version of torch may export another graph.
    """
    digest = hashlib.sha256()
    for node in exported.graph.nodes:
        value: Any = node.meta.get("val") if node.op == "placeholder" else None
        kind = (tuple(value.shape), str(value.dtype)) if hasattr(value, "dtype") else ""
        told = f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {kind}\n"
        digest.update(told.encode())
    digest.update(f"{exported.graph_signature}\n{exported.call_spec.out_spec}\n".encode())
    for name, tensor in sorted({**exported.state_dict, **exported.constants}.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(memoryview(tensor_bytes(tensor)))
    return digest.hexdigest()


def tensor_bytes(tensor: Any) -> Any:
    """The elements of a torch tensor as a flat array of bytes."""
    import torch

    flat: Any = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""
