"""From a scheduled function to something that runs: weight packing apart, computation apart.

A schedule may read a weight through a copy in another layout, made by a block annotated
``meta_schedule.layout_rewrite_preproc``. In a model that copy is made once, when the artifact is
built; so it is compiled to a function of its own here and its time is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.compiler import compile_functions
from search_spaces.task import Target, TensorType, Workload

_PACK, _MAIN = "kernel_weight_prepack", "kernel_prepacked"


class PackingError(ValueError):
    """The schedule packs an argument that is not a constant, or in a way that cannot be split."""


@dataclass(frozen=True)
class Split:
    """A scheduled function in two parts.

    ``module`` holds PrimFunc ``main`` (a name) and, where weights are packed, ``pack``, which takes
    the arguments at ``positions`` and writes tensors of ``types``, in that order. ``main`` takes
    the workload's arguments with the packed ones in their places.
    """

    module: Any = field(repr=False)
    main: str
    pack: str | None
    positions: tuple[int, ...]
    types: tuple[TensorType, ...]


@dataclass(frozen=True)
class Kernel:
    """A compiled candidate: ``library`` is a ``tvm.runtime.Module``, ``split`` names its parts."""

    library: Any = field(repr=False)
    split: Split
    function: Any = field(repr=False)

    def pack(
        self, arguments: Sequence[Any], allocate: Callable[[TensorType], Any] | None = None
    ) -> list[Any]:
        """Return ``arguments`` (TVM tensors, the workload's in order) as ``function`` takes them.

        Runs the packing function once, where there is one; other tensors are passed on, not copied.
        ``allocate`` makes the packed tensors, where TVM shall not.
        """
        import tvm

        ready = list(arguments)
        if self.split.pack is None:
            return ready
        make = allocate or (lambda t: tvm.runtime.empty(t.shape, t.dtype))
        packed = [make(t) for t in self.split.types]
        self.library[self.split.pack](*(ready[p] for p in self.split.positions), *packed)
        for position, tensor in zip(self.split.positions, packed, strict=True):
            ready[position] = tensor
        return ready

    def samples(self, arguments: Sequence[Any], repeat: int, *, cold: bool = False) -> list[float]:
        """Seconds of ``repeat`` single executions, timed in C++ after one that is not counted.

        ``cold`` flushes all arguments but the first from the caches before each.
        """
        import tvm

        return self._timed(tvm.cpu(), arguments, repeat, cold)

    def _timed(self, device: Any, arguments: Sequence[Any], repeat: int, cold: bool) -> list[float]:
        timer = self.library.time_evaluator(
            self.split.main,
            device,
            number=1,
            repeat=repeat,
            min_repeat_ms=0,
            f_preproc="cache_flush_cpu_non_first_arg" if cold else "",
        )
        return [float(seconds) for seconds in timer(*arguments).results]


def build_kernel(module: Any, workload: Workload, target: Target) -> Kernel:
    """Compile a scheduled IRModule (PrimFunc "main", packing blocks still inside).

    Raises ``PackingError``, or TVM's errors where lowering or LLVM refuses.
    """
    split = split_packing(module, workload)
    library = compile_functions(split.module, target)
    function = library[split.main]  # the look-up makes LLVM compile: it belongs to the build
    if split.pack is not None:
        library[split.pack]
    return Kernel(library, split, function)


def split_packing(module: Any, workload: Workload) -> Split:
    """Take the packing blocks of PrimFunc "main" out into a function of their own.

    Raises ``PackingError`` where something else than a constant is packed, and TVM's errors for a
    function that cannot be looked through.
    """
    import tvm
    from tvm import relax

    packs = _packs(module["main"])
    builder = relax.BlockBuilder()
    callee = builder.add_func(_named(module["main"], "kernel"), "kernel")
    inputs = workload.arguments[: len(workload.arguments) - workload.outputs]
    results = workload.arguments[len(inputs) :]
    variables = [relax.Var(f"p{i}", _relax_type(t)) for i, t in enumerate(inputs)]
    with builder.function("main", variables):
        with builder.dataflow():
            call = relax.call_tir(callee, variables, [_relax_type(t) for t in results])
            output = builder.emit_output(call)
        builder.emit_func_output(output)
    # Also where nothing is packed: what this pass refuses could not be built into a model.
    after = relax.transform.SplitLayoutRewritePreproc()(builder.get())
    if not packs:
        return Split(tvm.IRModule({"kernel": after["kernel"]}), "kernel", None, (), ())
    names = {gv.name_hint for gv in after.get_global_vars()}
    if _PACK not in names:
        raise PackingError("the packing blocks are not at the root of the function")
    positions = _packed_positions(after["main"], variables)
    for position in positions:
        if position not in workload.constants:
            raise PackingError(f"argument {position} is packed but is not a constant")
    pack = after[_PACK]
    types = tuple(_tensor_type(b) for b in pack.params[len(positions) :])
    functions = {name: _named(after[name], name) for name in (_PACK, _MAIN)}
    return Split(tvm.IRModule(functions), _MAIN, _PACK, positions, types)


def _named(function: Any, name: str) -> Any:
    return function.with_attr("global_symbol", name)


def _relax_type(tensor: TensorType) -> Any:
    from tvm import relax

    return relax.TensorType(tensor.shape, tensor.dtype)


def _tensor_type(buffer: Any) -> TensorType:
    return TensorType(tuple(int(extent) for extent in buffer.shape), str(buffer.dtype))


def _packs(function: Any) -> bool:
    """Whether a block at the root (loops around it apart) is marked as packing."""
    import tvm

    pending = [function.body.block.body]
    while pending:
        node = pending.pop()
        if isinstance(node, tvm.s_tir.SBlockRealize):
            if node.block.annotations.get("meta_schedule.layout_rewrite_preproc", False):
                return True
        elif isinstance(node, tvm.tirx.SeqStmt):
            pending.extend(node.seq)
        elif hasattr(node, "body"):
            pending.append(node.body)
    return False


def _packed_positions(main: Any, variables: Sequence[Any]) -> tuple[int, ...]:
    """Which parameters the packing call takes, in its own order."""
    for block in main.body.blocks:
        for binding in block.bindings:
            arguments = getattr(binding.value, "args", None)
            if arguments and getattr(arguments[0], "name_hint", "") == _PACK:
                names = [variable.name for variable in main.params]
                return tuple(names.index(a.name) for a in arguments[1].fields)
    raise PackingError("the packing function is not called")
