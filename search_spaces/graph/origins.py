"""Which operators of the original model an expression comes from: their names, kept in its span.

TVM compares and hashes expressions without their spans, and its passes hand them on. So names ride
along without a part in anything: two equal layers stay one kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import tvm
from tvm import relax


def names_of(expr: Any) -> tuple[str, ...]:
    """The names that ``expr`` carries, in order; none where it is no call or nothing is known."""
    span = expr.span if isinstance(expr, relax.Call) else None
    if not isinstance(span, tvm.ir.Span):
        return ()
    try:
        found = json.loads(span.source_name.name)
    except ValueError:  # a span that is a place in a file
        return ()
    return tuple(found) if isinstance(found, list) else ()


def joined_names(exprs: Iterable[Any]) -> tuple[str, ...]:
    """The names of several expressions, each once."""
    return tuple(dict.fromkeys(name for expr in exprs for name in names_of(expr)))


def with_names(expr: Any, names: Iterable[str]) -> Any:
    """``expr`` with ``names`` instead of its own; as it is where there are none, or it is no call.

    The call is a new one, whose type is not inferred yet.
    """
    listed = list(names)
    if not listed or not isinstance(expr, relax.Call):
        return expr
    source = tvm.ir.SourceName(json.dumps(listed))
    span = tvm.ir.Span(source, 0, 0, 0, 0)
    return relax.Call(expr.op, expr.args, expr.attrs, expr.ty_args, span)


class NamingBuilder(relax.BlockBuilder):  # type: ignore[misc, unused-ignore]
    """A builder that gives the names ``origin`` to every call that has none."""

    origin: tuple[str, ...] = ()

    def emit(self, expr: Any, name_hint: str = "") -> Any:
        """As ``relax.BlockBuilder``."""
        return super().emit(self.normalize(expr), name_hint)

    def emit_output(self, expr: Any, name_hint: str = "") -> Any:
        """As ``relax.BlockBuilder``."""
        return super().emit_output(self.normalize(expr), name_hint)

    def normalize(self, expr: Any) -> Any:
        """As ``relax.BlockBuilder``."""
        if isinstance(expr, relax.Tuple):
            expr = relax.Tuple([self.normalize(field) for field in expr.fields])
        if not isinstance(expr, relax.Call):
            return super().normalize(expr) if isinstance(expr, relax.Expr) else expr
        # A call whose operands have to be bound first is made anew, and loses its span.
        made = super().normalize(expr)
        names = names_of(expr) or self.origin
        if not names or names_of(made) == names:
            return made
        return super().normalize(with_names(made, names))
