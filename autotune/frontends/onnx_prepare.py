"""Bring a model whose shapes are fixed into the form that imports, by the weakest cure that works.

The cures come one after the other, weakest first: each can also turn a loud failure into a quiet
wrong result, so none is applied to a model that does not need it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from autotune.errors import ModelError
from autotune.frontends.onnx_contrib import lowered, lowers
from autotune.frontends.onnx_file import first_line, graph_inputs
from autotune.frontends.onnx_names import original_names
from autotune.frontends.onnx_relax import is_supported, to_relax, unsupported_operators
from autotune.frontends.onnx_rewrites import REWRITES, rewritten
from autotune.frontends.onnx_rewrites.base import Refused, Rewrite, qualified

Source = Callable[[], Any]
"""Makes a model, each time anew: who asks may use it up, so that it is not held twice."""


@dataclass(frozen=True)
class Prepared:
    """What TVM's importer made of a model: its Relax module.

    ``stage`` is the place of the cure in ``STAGES``, ``notes`` says what was done.
    """

    module: Any = field(repr=False)
    stage: int
    notes: tuple[str, ...]


LAST = frozenset(["NonMaxSuppression"])
"""Operators whose result has fewer rows than TVM's importer says, so that nothing may follow."""

HEAVY = 1 << 26
"""Bytes of a model whose copies are not left to be found by the garbage collector in its time."""

UNROLLED = 1000
"""Nodes that a model has become, above which steps were unrolled."""

RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike"]
)  # fmt: skip
"""Operators of which there is no right result to compare with."""

# A model as it is comes second: simplified it makes better kernels, and seldom worse results.
STAGES = ("simplified", "as it is", "inlined", "rewritten", "inlined and rewritten")


def import_prepared(source: Source, proto: Any, name: str, first: int = 0) -> Prepared:
    """Import a model by the weakest cure that works, of those from ``first`` on in ``STAGES``.

    ``proto`` is its outline.

    Raises ``ModelError``, naming all unsupported operators at once where that is the reason.
    """
    unsupported: dict[str, int] = {}
    failure: BaseException | None = None
    reasons: list[str] = []
    read = {name for node in proto.graph.node for name in node.input}
    unusable = {n.op_type for n in proto.graph.node if n.op_type in LAST and read & {*n.output}}
    if unusable:
        raise ModelError(
            f"{name} goes on after {', '.join(sorted(unusable))}, and how much that returns "
            "depends on the data: cut the model after it"
        )
    standard: dict[str, int] = {}

    def written() -> Any:
        made, done, reason = lowered(source())
        standard.update(done)
        reasons.extend([reason] if reason else [])
        return made

    try:
        plain, slim_notes = simplified(written)
        if standard:
            listed = ", ".join(sorted(standard))
            slim_notes = (*slim_notes, f"in operators of the standard: {listed}")
        rewritten(plain, lambda _, rewrite: rewrite.always or bool(rewrite.domain))
    except Refused as error:
        raise ModelError(f"{name} has {error}") from None
    for stage, candidate, notes, reason in _stages(written, plain, slim_notes, first):
        reasons += [reason] if reason else []
        missing = unsupported_operators(candidate)
        if missing:
            # The first stage speaks the user's language: later ones name parts of their operators.
            # And they are counted in the original, where nothing was merged yet.
            whole = unsupported_operators(proto)
            unsupported = unsupported or {op: whole.get(op, n) for op, n in missing.items()}
            continue
        try:
            named = original_names(proto, candidate)
            return Prepared(to_relax(candidate, named), stage, notes)
        except Exception as error:  # TVM's importer fails in any way; the next cure may help
            failure = failure or error
    if unsupported and failure is None:
        listed = ", ".join(f"{op} ({count}×)" for op, count in sorted(unsupported.items()))
        why = f" ({reasons[-1]})" if reasons else ""
        raise ModelError(
            f"{name} uses operators that cannot be compiled: {listed}{why}; "
            "export it without them, or cut the model before them"
        )
    said = reasons[-1] if reasons else first_line(failure) if failure else "no reason given"
    raise ModelError(
        f"{name} cannot be imported ({said}): "
        "export it with fixed shapes and an opset between 11 and 18"
    )


def _stages(
    source: Source, plain: Any, slim_notes: tuple[str, ...], first: int
) -> Iterator[tuple[int, Any, tuple[str, ...], str]]:
    """From ``first`` on: place in ``STAGES``, model, notes, and what a rewrite could not know."""
    fixed, done, _ = rewritten(plain, lambda _, rewrite: rewrite.always)
    always = (f"rewritten: {', '.join(sorted(done))}",) if done else ()
    if first <= 0:
        yield 0, fixed, (*slim_notes, *always), ""
    if first <= 1:
        # Simplifying folds what the importer could not; but now and then it breaks a model.
        raw, done, _ = rewritten(source(), lambda _, rewrite: rewrite.always)
        notes = (f"rewritten: {', '.join(sorted(done))}",) if done else ()
        yield 1, raw, ("not simplified", *notes), ""
    missing = set(unsupported_operators(plain))
    inlinable = {op for op in missing if "." not in op} - _control(plain)
    if first <= 2 and (only := inlinable):
        inlined = inline(fixed, only)
        if inlined is not None:
            cured, more = simplify(inlined)
            names = ", ".join(sorted(only))
            yield 2, cured, (*slim_notes, *always, f"inlined: {names}", *more), ""
    for stage in (3, 4):
        if first <= stage:
            cured, more, reason = _taken_apart(plain, missing, everything=stage == 4)
            if (more, stage) != ((), 3):
                yield stage, cured, (*slim_notes, *more), reason


def _taken_apart(
    plain: Any, missing: Set[str], everything: bool
) -> tuple[Any, tuple[str, ...], str]:
    """``plain`` with operators in ``missing`` rewritten or inlined, or all that can be."""
    wanted = set(missing)

    def rewrites(operator: str, rewrite: Rewrite) -> bool:
        return everything or rewrite.always or operator in wanted or not rewrite.known

    made, done, reason = rewritten(plain, rewrites)
    notes = [f"rewritten: {', '.join(sorted(done))}"] if done else []
    rest = {op for op in unsupported_operators(made) if "." not in op}
    if everything or rest:
        inlined = inline(made, set() if everything else rest)
        if inlined is not None:
            wanted |= {*rest, *unsupported_operators(inlined)}
            made, more, reason = rewritten(inlined, rewrites)
            names = "all operators that ONNX defines by functions"
            notes.append(f"inlined: {names if everything else ', '.join(sorted(rest))}")
            if more:
                notes.append(f"rewritten in these: {', '.join(sorted(more))}")
    if len(made.graph.node) > UNROLLED:
        # It takes onnxslim minutes to find out that steps cannot be made simpler.
        return made, (*notes, "not simplified after that"), reason
    cured, more_notes = simplify(made)
    return cured, (*notes, *more_notes), reason


def stage_of(operator: str, domain: str, opset: int) -> str:
    """The weakest of ``STAGES`` that can import ``operator``, which may still not do in all cases.

    Empty where none can.
    """
    from onnx import defs

    if operator in RANDOM:
        return ""
    name = qualified(operator, domain)
    rules = [rewrite for rewrite in REWRITES if name in rewrite.names]
    if is_supported(operator, domain) or lowers(operator, domain):
        return STAGES[0]
    try:
        # The opset is that of ONNX's own operators; of others any version tells as much.
        newest = opset or defs.onnx_opset_version() if not domain else 1
        schema: Any = defs.get_schema(operator, newest, domain)
    except defs.SchemaError:
        return STAGES[3] if rules else ""
    if schema.has_function or schema.has_context_dependent_function:
        return STAGES[2]
    return STAGES[3] if rules else ""


def _control(proto: Any) -> set[str]:
    return {node.op_type for node in proto.graph.node} & {"If", "Loop", "Scan"}


def simplify(proto: Any) -> tuple[Any, tuple[str, ...]]:
    """``proto`` with constants folded and shapes inferred; as it is, with a note, if that fails."""
    return simplified(lambda: _copy(proto))


def simplified(source: Source) -> tuple[Any, tuple[str, ...]]:
    """As ``simplify``, of what ``source`` makes, which is used up."""
    import onnxslim

    proto = source()
    heavy = proto.ByteSize() >= HEAVY
    inputs = [_copy(value) for value in graph_inputs(proto)]
    given = [proto]
    del proto
    try:
        slim = onnxslim.slim(given.pop())
    except Exception as error:  # onnxslim raises IndexError, KeyError and more on valid models
        return source(), (f"not simplified: onnxslim failed ({type(error).__name__})",)
    if heavy:
        gc.collect()  # its graphs refer to themselves, and to the weights
    _keep_inputs(inputs, slim)
    _plain_constants(slim)
    return slim, ()


def _plain_constants(proto: Any) -> None:
    """Constants given as numbers become tensors, the one form that TVM's importer reads."""
    import numpy as np
    from onnx import helper, numpy_helper

    types = {"value_float": np.float32, "value_int": np.int64}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name.rstrip("s") in types:
            (attribute,) = node.attribute
            value = np.asarray(
                helper.get_attribute_value(attribute), types[attribute.name.rstrip("s")]
            )
            del node.attribute[:]
            tensor = numpy_helper.from_array(value)
            node.attribute.append(helper.make_attribute("value", tensor))


def _keep_inputs(inputs: list[Any], slim: Any) -> None:
    """Give ``slim`` its ``inputs`` again: onnxslim drops those that nothing reads."""
    typed = {value.name: value for value in slim.graph.input}
    kept = [_copy(typed.get(value.name, value)) for value in inputs]
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
