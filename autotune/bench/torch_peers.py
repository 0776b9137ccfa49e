"""PyTorch as an engine to compare with: the program of a .pt2 file, eager and by torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import ModelError

if TYPE_CHECKING:
    from autotune.frontends.base import Arrays
    from autotune.frontends.torch_program import Program

    Run = Callable[[], dict[str, Any]]


def eager(model: Path, inputs: Arrays, threads: int) -> Run:
    """Runs the program operator by operator."""
    return _started(model, inputs, threads, lambda module: module)


def compiled(model: Path, inputs: Arrays, threads: int) -> Run:
    """Runs what torch.compile makes of the program by its defaults, which is compiled here."""
    import torch

    run = _started(model, inputs, threads, torch.compile)
    try:
        run()
    except Exception as error:  # dynamo wraps what stopped its backend, and in several ways
        if _no_compiler(error):
            raise ModelError(
                "torch.compile needs a C++ compiler and finds none: install g++, or leave it out "
                "of --against"
            ) from error
        raise
    return run


def _started(
    model: Path, inputs: Arrays, threads: int, make: Callable[[Any], Callable[..., Any]]
) -> Run:
    import numpy as np
    import torch

    from autotune.frontends.torch_file import read_program
    from autotune.frontends.torch_program import functional

    torch.set_num_threads(threads)
    program = read_program(model)
    # torch warns of arrays that must not be written to.
    feed = {name: np.require(array, requirements="W") for name, array in inputs.items()}
    if _writes(program):
        return _of_function(functional(program, model.stem), feed, make)
    return _of_module(program, feed, make)


def _of_module(program: Any, feed: Arrays, make: Callable[[Any], Callable[..., Any]]) -> Run:
    """The program with its weights inside, as a module of plain tensors.

    How ``program.module()`` packs and unpacks arguments, and checks their shapes, takes longer than
    a small model: nobody who runs the module that was exported has that.
    """
    import torch
    from torch.export.graph_signature import ConstantArgument, InputKind

    from autotune.frontends.torch_program import output_names

    module = program.module(check_guards=False)
    plain = torch.fx.Graph()
    plain.output(plain.graph_copy(module.graph, {}))
    function = make(torch.fx.GraphModule(module, plain))
    names = output_names(program.call_spec.out_spec)
    given = [spec.arg for spec in program.graph_signature.input_specs
             if spec.kind is InputKind.USER_INPUT]  # fmt: skip
    constants = {arg.name: arg.value for arg in given if isinstance(arg, ConstantArgument)}
    places = [arg.name for arg in given]

    def run() -> dict[str, Any]:
        tensors = [
            constants[place] if place in constants else torch.from_numpy(feed[place])
            for place in places
        ]
        with torch.inference_mode():
            return {
                name: value.numpy()
                for name, value in zip(names, function(*tensors), strict=True)
                if isinstance(value, torch.Tensor)
            }

    return run


def _of_function(pure: Program, feed: Arrays, make: Callable[[Any], Callable[..., Any]]) -> Run:
    """The program with its states going in and coming out, as an artifact has them.

    Called as it is, it would start from another state each time.
    """
    import torch

    function = make(pure.graph)
    known: Mapping[str, Any] = {**pure.bound, **pure.fixed}
    places = [node.name for node in pure.graph.graph.nodes if node.op == "placeholder"]

    def run() -> dict[str, Any]:
        given = [
            known[place] if place in known else torch.from_numpy(feed[pure.inputs[place]])
            for place in places
        ]
        with torch.inference_mode():
            return {
                name: value.numpy()
                for name, value in zip(pure.outputs, function(*given), strict=True)
                if name is not None
            }

    return run


def _writes(program: Any) -> bool:
    """Whether the program writes to its buffers or inputs, also through views of them.

    Told by the schemas of its operators: making it functional takes a third of its load time.
    """
    import torch

    held = {node for node in program.graph.nodes if node.op == "placeholder"}
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            if held & set(node.all_input_nodes):  # one of several views
                held.add(node)
            continue
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        for argument in schema.arguments:
            value = given.get(argument.name)
            several = value if isinstance(value, list | tuple) else [value]
            nodes = {each for each in several if isinstance(each, torch.fx.Node)}
            if argument.alias_info is None or not held & nodes:
                continue
            if argument.alias_info.is_write:
                return True
            held.add(node)
        # Norms do not say that they write to their statistics.
        if "_norm" in schema.name and (given.get("training") or given.get("use_input_stats")):
            return True
    return False


def _no_compiler(error: BaseException | None) -> bool:
    from torch._inductor.exc import InvalidCxxCompiler

    while error is not None:
        if isinstance(error, InvalidCxxCompiler):
            return True
        error = error.__cause__ or error.__context__
    return False
