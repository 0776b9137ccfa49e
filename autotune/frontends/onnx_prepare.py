"""Bring a model whose shapes are fixed into the form that imports: simplified, or inlined as well.

The cures come one after the other, weakest first: each can also turn a loud failure into a quiet
wrong result, so none is applied to a model that does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from autotune.errors import ModelError
from autotune.frontends.onnx_file import first_line, graph_inputs
from autotune.frontends.onnx_relax import to_relax, unsupported_operators


def import_prepared(proto: Any, name: str) -> tuple[Any, Any, tuple[str, ...]]:
    """The Relax module of ``proto``, the ONNX model it was made from, and notes on the cures.

    Raises ``ModelError``, naming all unsupported operators at once where that is the reason.
    """
    unsupported: dict[str, int] = {}
    failure: BaseException | None = None
    for candidate, notes in _stages(proto):
        missing = unsupported_operators(candidate)
        if missing:
            # The first stage speaks the user's language: later ones name parts of their operators.
            # And they are counted in the original, where nothing was merged yet.
            whole = unsupported_operators(proto)
            unsupported = unsupported or {op: whole.get(op, n) for op, n in missing.items()}
            continue
        try:
            return to_relax(candidate), candidate, notes
        except Exception as error:  # TVM's importer fails in any way; the next cure may help
            failure = failure or error
    if unsupported and failure is None:
        listed = ", ".join(f"{op} ({count}×)" for op, count in sorted(unsupported.items()))
        raise ModelError(
            f"{name} uses operators that cannot be compiled: {listed}; "
            "export it without them, or cut the model before them"
        )
    raise ModelError(
        f"{name} cannot be imported ({first_line(failure) if failure else 'no reason given'}): "
        "export it with fixed shapes and an opset between 11 and 18"
    )


def _stages(proto: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    slim, notes = simplify(proto)
    yield slim, notes
    # Everything at once is tried last: the inliner gives up on some operators that need no cure.
    missing = {op for op in unsupported_operators(slim) if "." not in op}
    for only in ([missing] if missing else []) + [set()]:
        inlined = inline(slim, only)
        if inlined is not None:
            cured, more = simplify(inlined)
            names = ", ".join(sorted(only)) or "all operators that ONNX defines by functions"
            yield cured, (*notes, f"inlined: {names}", *more)


def simplify(proto: Any) -> tuple[Any, tuple[str, ...]]:
    """``proto`` with constants folded and shapes inferred; as it is, with a note, if that fails."""
    import onnxslim

    try:
        slim = onnxslim.slim(_copy(proto))
    except Exception as error:  # onnxslim raises IndexError, KeyError and more on valid models
        return proto, (f"not simplified: onnxslim failed ({type(error).__name__})",)
    _keep_inputs(proto, slim)
    return slim, ()


def _keep_inputs(proto: Any, slim: Any) -> None:
    """Give ``slim`` the inputs of ``proto`` again: onnxslim drops those that nothing reads."""
    typed = {value.name: value for value in slim.graph.input}
    kept = [_copy(typed.get(value.name, value)) for value in graph_inputs(proto)]
    del slim.graph.input[:]
    slim.graph.input.extend(kept)


def inline(proto: Any, only: Set[str] = frozenset()) -> Any:
    """``proto`` with operators that ONNX defines by functions replaced by their bodies.

    All of them and every function of the model, or just the operators in ``only``. None where the
    inliner fails. Its function bodies need the type of each initializer.
    """
    from onnx import helper
    from onnx.inliner import inline_selected_functions

    typed = _copy(proto)
    known = {value.name for value in (*typed.graph.input, *typed.graph.value_info)}
    for tensor in typed.graph.initializer:
        if tensor.name not in known:
            typed.graph.value_info.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    try:
        return inline_selected_functions(
            typed,
            [("", name) for name in sorted(only)],
            exclude=not only,
            inline_schema_functions=True,
        )
    except Exception:  # the inliner is C++ and raises RuntimeError or ValueError as it likes
        return None


def _copy(proto: Any) -> Any:
    copy = type(proto)()
    copy.CopyFrom(proto)
    return copy
