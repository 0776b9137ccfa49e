"""Handing the names of original operators through passes that lose them; see
``search_spaces.graph.origins`` for how a call carries them.

TVM's passes over operators keep spans. Those that make kernels do not: legalisation makes other
calls for the same variables, and fusion moves calls into functions, of which equal ones become one.
So there what a kernel computes is looked up among what was computed before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tvm
from tvm import relax

from search_spaces.graph.expressions import is_constant, variables_of
from search_spaces.graph.origins import names_of, with_names

Names = tuple[str, ...]


def bindings_of(function: Any) -> Iterator[Any]:
    """The bindings of a Relax function, in order."""
    for block in function.body.blocks:
        yield from block.bindings


def kernel_calls(module: tvm.IRModule) -> list[tuple[str, Names]]:
    """Each call of a PrimFunc that "main" makes, in order: its name, and the original operators."""
    call_tir = tvm.ir.Op.get("relax.call_tir")
    values = (binding.value for binding in bindings_of(module["main"]))
    return [
        (str(value.args[0].name_hint), names_of(value))
        for value in values
        if isinstance(value, relax.Call) and value.op == call_tir
    ]


def kept(before: tvm.IRModule, after: tvm.IRModule) -> tvm.IRModule:
    """``after`` with the names of ``before``, of which it has the variables with other values.

    What still has none gets those of what it is made for, else of what it is made from.
    """
    known = {b.var: names_of(b.value) for b in bindings_of(before["main"])}
    return filled(_renamed(after, lambda b: names_of(b.value) or known.get(b.var, ())))


def filled(module: tvm.IRModule) -> tvm.IRModule:
    """``module`` in which each call of "main" has names, as long as any has."""
    bindings = list(bindings_of(module["main"]))
    names: dict[Any, Names] = {b.var: names_of(b.value) for b in bindings}
    reads = {b.var: [v for v in variables_of(b.value) if v in names] for b in bindings}
    for var in reversed(reads):
        for read in reads[var]:
            names[read] = names[read] or names[var]
    for var, read in reads.items():
        names[var] = names[var] or next((names[r] for r in read if names[r]), ())
    return _renamed(module, lambda b: names[b.var])


def settled(original: tvm.IRModule, module: tvm.IRModule) -> tvm.IRModule:
    """``module``, made from ``original``, with every name of that somewhere.

    What a pass took out, or made part of something else, goes to what it was there for.
    """
    module = filled(module)
    left = {name for b in bindings_of(module["main"]) for name in names_of(b.value)}
    extra: dict[str, dict[str, None]] = {}
    bindings = list(bindings_of(original["main"]))
    anchors: dict[Any, str] = {}
    """By variable: a name that is left, of itself or of what it is there for."""
    for binding in reversed(bindings):
        own = [name for name in names_of(binding.value) if name in left]
        anchor = own[-1] if own else anchors.get(binding.var, "")
        for read in variables_of(binding.value) if anchor else ():
            anchors.setdefault(read, anchor)
        anchors[binding.var] = anchor
    for binding in bindings:
        for name in names_of(binding.value):
            if name not in left and anchors[binding.var]:
                extra.setdefault(anchors[binding.var], {})[name] = None

    def names(binding: Any) -> Names:
        own = names_of(binding.value)
        return tuple(dict.fromkeys(n for name in own for n in (*extra.get(name, ()), name)))

    return _renamed(module, names)


def fused_names(before: tvm.IRModule, after: tvm.IRModule) -> tvm.IRModule:
    """``after``, which is ``before`` with calls moved into functions, with the names of those.

    A function that several calls share computes something else in each, so it is gone through once
    a call: what is the same operation on the same operands as before has the names from there.
    """
    values = _Values({v.name_hint: f for v, f in after.functions_items()})
    shared = [v.name_hint for v, f in before.functions_items() if isinstance(f, relax.Function)]
    values.opaque.update(shared)
    known: dict[int, Names] = {}
    values.run(before["main"], [values.of("in", i) for i, _ in enumerate(before["main"].params)])
    for number, call in values.seen:
        known.setdefault(number, names_of(call))
    main = after["main"]
    found: dict[Any, Names] = {}
    numbers = {p: values.of("in", i) for i, p in enumerate(main.params)}
    for binding in bindings_of(main):
        values.seen.clear()
        numbers[binding.var] = values.number(binding.value, numbers)
        own = [name for number, _ in values.seen for name in known.get(number, ())]
        found[binding.var] = tuple(dict.fromkeys(own))
    return filled(_renamed(after, lambda b: found[b.var] or names_of(b.value)))


class _Values:
    """Numbers what expressions compute: the same number, the same computation."""

    def __init__(self, functions: dict[str, Any]) -> None:
        self.functions = functions
        self.opaque: set[str] = set()
        """Functions that are not looked into."""
        self.seen: list[tuple[int, Any]] = []
        """Calls that were gone through, and their numbers."""
        self._numbers: dict[tuple[Any, ...], int] = {}

    def of(self, *key: Any) -> int:
        """The number of what ``key`` describes."""
        return self._numbers.setdefault(key, len(self._numbers))

    def run(self, function: Any, given: list[int]) -> int:
        """The number of what ``function`` returns, given those of its arguments."""
        numbers = dict(zip(function.params, given, strict=True))
        for binding in bindings_of(function):
            numbers[binding.var] = self.number(binding.value, numbers)
        return self.number(function.body.body, numbers)

    def number(self, expr: Any, numbers: dict[Any, int]) -> int:
        """The number of ``expr``, where variables have ``numbers``."""
        if isinstance(expr, relax.Var) and expr in numbers:
            return numbers[expr]
        if isinstance(expr, relax.Tuple):
            return self.of("tuple", *(self.number(field, numbers) for field in expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return self.of("item", self.number(expr.tuple_value, numbers), int(expr.index))
        if is_constant(expr):
            return self.of("constant", expr.value.data_ptr(), str(expr.ty))
        if not isinstance(expr, relax.Call):
            return self.of("leaf", str(expr))
        operands = [self.number(arg, numbers) for arg in expr.args]
        name = getattr(expr.op, "name_hint", "")
        inner = self.functions.get(name) if name not in self.opaque else None
        if isinstance(inner, relax.Function):
            return self.run(inner, operands)
        found = self.of("call", str(expr.op), *operands, *map(str, expr.ty_args))
        self.seen.append((found, expr))
        return found


def _with_value(binding: Any, value: Any) -> Any:
    if isinstance(binding, relax.MatchCast):
        return relax.MatchCast(binding.var, value, binding.ty)
    return relax.VarBinding(binding.var, value)


def _renamed(module: tvm.IRModule, names: Callable[[Any], Names]) -> tvm.IRModule:
    """``module`` with the names that each binding of "main" is to have."""
    main = module["main"]
    blocks, changed = [], False
    for block in main.body.blocks:
        bindings = []
        for binding in block.bindings:
            wanted = names(binding)
            call = isinstance(getattr(binding, "value", None), relax.Call)
            if call and wanted and wanted != names_of(binding.value):
                binding, changed = _with_value(binding, with_names(binding.value, wanted)), True
            bindings.append(binding)
        blocks.append(type(block)(bindings))
    if not changed:
        return module
    body = relax.SeqExpr(blocks, main.body.body)
    made = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    result = module.clone()
    result.update_func(module.get_global_var("main"), made)
    return relax.transform.Normalize()(result)
