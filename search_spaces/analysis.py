"""Reads a PrimFunc into plain values: its blocks, its arguments, and a key that ignores names."""

from __future__ import annotations

import hashlib
import io
import keyword
import math
import tokenize
from collections import Counter
from typing import Any

from search_spaces.task import Access, Axis, Block, TensorType, Workload

CONSTANTS = "layout_free_buffers"
_NAMESPACES = frozenset({"T", "I", "R", "range", "True", "False", "None"})


def workload(function: Any, name: str) -> Workload:
    """Describe ``function``, an unscheduled ``tirx.PrimFunc`` that writes its last parameter."""
    import tvm

    attrs = dict(function.attrs or {})
    constants = tuple(int(i) for i in attrs.get(CONSTANTS, ()))
    plain = function
    for key in attrs:
        if key not in (CONSTANTS, "tirx.noalias", "s_tir"):
            plain = plain.without_attr(key)
    module = tvm.IRModule({"main": plain.with_attr("global_symbol", "main")})
    arguments, blocks = describe(module)
    written = {access.buffer for block in blocks for access in block.writes if access.buffer >= 0}
    return Workload(
        key=key_of(module),
        name=name,
        function=tvm.ir.save_json(module),
        arguments=arguments,
        outputs=max(1, len(written)),
        constants=constants,
        blocks=blocks,
    )


def key_of(module: Any) -> str:
    """Digest of the printed module with every name replaced by its order of appearance."""
    text = module.script(show_meta=False, verbose_expr=False)
    names: dict[str, str] = {}
    words: list[str] = []
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        word = token.string
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE):
            continue
        if token.type == tokenize.NAME and previous != "." and not keyword.iskeyword(word):
            if word not in _NAMESPACES:
                word = names.setdefault(word, f"v{len(names)}")
        elif token.type == tokenize.STRING and words[-2:] == ["sblock", "("]:
            word = "block"
        words.append(word)
        previous = token.string
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:32]


def describe(module: Any) -> tuple[tuple[TensorType, ...], tuple[Block, ...]]:
    """Arguments and blocks of PrimFunc "main"."""
    from tvm import s_tir

    schedule = s_tir.Schedule(module, debug_mask=0)
    function = module["main"]
    buffers: dict[Any, int] = {}
    arguments = []
    for position, argument in enumerate(function.params):
        buffers[argument] = position
        shape = tuple(int(extent) for extent in argument.shape)
        arguments.append(TensorType(shape, str(argument.dtype)))
    root = schedule.get(schedule.get_sblock("root"))
    for index, buffer in enumerate(root.alloc_buffers):
        buffers[buffer] = -1 - index
    found = schedule.get_child_blocks(schedule.get_sblock("root"))
    return tuple(arguments), tuple(_block(schedule.get(rv), buffers) for rv in found)


def _block(block: Any, buffers: dict[Any, int]) -> Block:
    axes = tuple(Axis(int(var.dom.extent), int(var.iter_type) == 2) for var in block.iter_vars)
    positions = {var.var: index for index, var in enumerate(block.iter_vars)}
    return Block(
        name=block.name_hint,
        axes=axes,
        reads=tuple(_access(region, buffers, positions) for region in block.reads),
        writes=tuple(_access(region, buffers, positions) for region in block.writes),
        ops=tuple(sorted(_operations(block.body).items())),
    )


def _access(region: Any, buffers: dict[Any, int], positions: dict[Any, int]) -> Access:
    from tvm import tirx

    dims = []
    plain = True
    for entry in region.region:
        used = tirx.analysis.undefined_vars(entry.min)
        dims.append(tuple(sorted(positions[var] for var in used if var in positions)))
        one = isinstance(entry.extent, tirx.IntImm) and int(entry.extent) == 1
        simple = isinstance(entry.min, tirx.Var | tirx.IntImm)
        plain = plain and one and simple
    return Access(buffers[region.source], tuple(dims), plain)


def _operations(body: Any) -> Counter[str]:
    import tvm_ffi
    from tvm.ir import Call, prim

    counts: Counter[str] = Counter()

    def visit(node: Any) -> None:
        if isinstance(node, Call):
            counts[getattr(node.op, "name", "call")] += 1
        elif not str(node.ty.dtype).startswith("int"):
            counts[type(node).__name__] += 1

    e = prim.expr
    kinds = (Call, e.Add, e.Sub, e.Mul, e.Div, e.Mod, e.FloorDiv, e.FloorMod, e.Max, e.Min)
    tvm_ffi.structural_walk(body, ((*kinds, e.Select, e.Cast), visit))
    return counts


def arithmetic(function: Any) -> str:
    """The dtype of what ``function``, an unscheduled ``tirx.PrimFunc``, multiplies most often.

    Numbers that are read only to be multiplied as longer ones count as what they are: processors
    have instructions for such products. Where nothing is multiplied it is that of the result.
    """
    import tvm
    import tvm_ffi
    from tvm import s_tir, tirx
    from tvm.ir import TensorLoad, prim

    schedule = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask=0)
    found: dict[str, int] = {}

    def read(operand: Any) -> str:
        """The dtype of an operand as it is in memory; "" where it is computed."""
        while isinstance(operand, tirx.Cast):
            operand = operand.value
        return str(operand.ty.dtype) if isinstance(operand, TensorLoad) else ""

    for each in schedule.get_child_blocks(schedule.get_sblock("root")):
        block = schedule.get(each)
        times = math.prod(int(var.dom.extent) for var in block.iter_vars)

        def visit(node: Any, times: int = times) -> None:
            dtype, operands = str(node.ty.dtype), (read(node.a), read(node.b))
            if not all(operands) and dtype.startswith("int"):
                return  # an index
            short = operands[0].removeprefix("u") == operands[1].removeprefix("u") != ""
            kind = operands[0].removeprefix("u") if short else dtype
            found[kind] = found.get(kind, 0) + times

        tvm_ffi.structural_walk(block.body, ((prim.expr.Mul,), visit))
    if not found:
        return str(function.params[-1].dtype)
    return max(found, key=lambda kind: found[kind])
