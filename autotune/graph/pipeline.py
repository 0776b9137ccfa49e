"""From an imported model to fused functions: the passes, in order, with the reason for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tvm
from tvm import relax, tirx

from autotune.frontends.base import ImportedModel
from autotune.graph import legalize
from autotune.graph.choices import choose
from autotune.graph.constants import fold_constants
from autotune.graph.halves import halves
from autotune.graph.integers import integers
from autotune.graph.layout import channels_last
from autotune.graph.matmul import drop_reshapes
from autotune.graph.mish import simplify_mish
from autotune.graph.model import FusedModel
from autotune.graph.origins import filled, fused_names, kept, settled
from autotune.graph.tasks import extract_tasks, has_blocks
from search_spaces.graph.base import Choices
from search_spaces.graph.grouping import joined
from search_spaces.task import Target

T = relax.transform


def optimise(imported: ImportedModel, target: Target, choices: Choices | None = None) -> FusedModel:
    """Fold, rewrite, lay out, fuse and take the tasks out of ``imported``.

    ``choices`` are those of the graph spaces, the default where there are none. Nothing is
    scheduled yet.
    """
    module = simplified(imported, target)
    return fused(imported, target, *choose(module, target, choices, lay_out))


def simplified(imported: ImportedModel, target: Target) -> tvm.IRModule:
    """``imported`` as graph spaces find it."""
    with _context(target):
        return simplify(imported.module)


def fused(
    imported: ImportedModel, target: Target, module: tvm.IRModule, made: Choices
) -> FusedModel:
    """The tasks of ``imported``, of which graph spaces made ``module`` by the choices ``made``."""
    with _context(target):
        module = fuse(settled(imported.module, module), target)
    tasks, functions = extract_tasks(module)
    return FusedModel(
        name=imported.name,
        digest=imported.digest,
        target=target,
        module=module,
        inputs=imported.inputs,
        outputs=imported.outputs,
        tasks=tasks,
        functions=functions,
        choices={"layout": "NHWC", "fusion": "all", "spaces": made},
        packages=imported.packages,
    )


@contextmanager
def _context(target: Target) -> Iterator[None]:
    with tvm.target.Target(target.tvm()), tvm.transform.PassContext(opt_level=3):
        yield


def lower(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """The graph passes alone with the default choices, under the caller's pass context."""
    return fuse(choose(simplify(module), target, lay_out=lay_out)[0], target)


def simplify(module: tvm.IRModule) -> tvm.IRModule:
    """What every model is better for: weights folded, detours of exporters taken out."""
    module = fold_constants(module)
    # Only a convolution directly followed by batch_norm is folded, so nothing may be decomposed
    # before; what it leaves are constants times constants.
    module = T.FoldBatchnormToConv2D()(module)
    return simplify_mish(drop_reshapes(fold_constants(module)))


def lay_out(module: tvm.IRModule) -> tvm.IRModule:
    """Images with the channels last, no work twice, norms taken apart: what is fused from now on.

    Decides for itself, so it needs no target.
    """
    passes = [
        T.EliminateCommonSubexpr(),
        T.CanonicalizeBindings(),
        T.FoldConstant(),
        T.DecomposeOpsForInference(),
    ]
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(channels_last(module))


def fuse(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """From operators, laid out, to fused functions."""
    operators = filled(halves(integers(module, target), target))
    legal = T.AnnotateTIROpPattern()(T.LegalizeOps(legalize.table(target))(operators))
    legal = kept(operators, legal)
    groups = fused_names(legal, T.FuseOps()(legal))
    module = tvm.transform.Sequential(
        [
            tvm.transform.module_pass(lambda module, _: joined(module), opt_level=0, name="Joined"),
            T.DeadCodeElimination(),
            # Marks the weights, whose layout a schedule may change at compile time.
            T.AttachAttrLayoutFreeBuffers(),
        ]
    )(kept(groups, T.FuseTIR()(groups)))
    return _narrow_indices(_without_free_buffers(module))


def _without_free_buffers(module: tvm.IRModule) -> tvm.IRModule:
    """Functions that are no tree of blocks have no schedule, and so no layouts to choose.

    TVM's pass that takes layouts apart fails on them where they are marked.
    """
    result = module.clone()
    for variable, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc) and not has_blocks(function):
            result.update_func(variable, function.without_attr("layout_free_buffers"))
    return result


def _narrow_indices(module: tvm.IRModule) -> tvm.IRModule:
    """Index with 32 bits wherever no buffer holds 64-bit integers itself.

    Cheaper addresses, and TVM's LoopPartition (which cuts tails off) loses its hints where a later
    pass narrows the loop variables.
    """
    narrow = tirx.transform.ForceNarrowIndexToInt32()
    result = module.clone()
    for variable, function in module.functions_items():
        if not isinstance(function, tirx.PrimFunc) or "int64" in _dtypes(function):
            continue
        name = variable.name_hint
        single = tvm.IRModule({name: function.with_attr("global_symbol", name)})
        narrowed = narrow(single)[name].without_attr("global_symbol")
        symbol = (function.attrs or {}).get("global_symbol")
        if symbol is not None:
            narrowed = narrowed.with_attr("global_symbol", symbol)
        result.update_func(variable, narrowed)
    return result


def _dtypes(function: tirx.PrimFunc) -> set[str]:
    """Dtypes of every buffer of ``function``; int64 stands for what cannot be told."""
    if not all(isinstance(p.ty, tirx.BufferType) for p in function.params):
        return {"int64"}
    inner = getattr(getattr(function.body, "block", None), "alloc_buffers", ())
    return {str(buffer.dtype) for buffer in (*function.params, *inner)}
