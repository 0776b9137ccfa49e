"""Read a ``.pt2`` file without running anything that it holds.

``torch.export.load`` unpickles parts of a file without limits, resolves any name below ``torch`` as
an operator, and evaluates expressions. So the file is looked through before: every operator has to
be one of ATen's or of arithmetic, every pickle has to load with ``weights_only=True``, expressions
of shapes have to be arithmetic, and whatever torch would unpickle without limits is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.errors import ModelError
from autotune.frontends.onnx_file import first_line

_OPERATORS = re.compile(
    r"torch\.ops\.aten\.\w+(\.\w+)?"
    r"|torch\.sym_(int|float|max|min|not|ite)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
_CONTAINERS = frozenset(
    [None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"]
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=&|~]*")
_WORDS = frozenset(
    [
        *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilDiv"),
        *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "TruncToFloat", "ToFloat"),
        *("LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "Identity"),
        *("RoundDecimal", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not"),
        *("Add", "Mul", "Pow", "Integer", "Rational", "Equality", "Unequality", "LessThan"),
        *("GreaterThan", "StrictLessThan", "StrictGreaterThan"),
        *("true", "false", "True", "False", "int_oo", "oo"),
    ]
)
_DECLARED = re.compile(r"Symbol\('(\w+)'((?:, \w+=(?:True|False))*)\)")
"""How torch writes a symbol: its name, and what sympy is to assume of it."""
_SYMBOL = re.compile(r"[suz]\d+|u?float\d+|\d+")


def read_program(path: Path) -> Any:
    """The ``torch.export.ExportedProgram`` in the file ``path``; raises ``ModelError``."""
    import torch

    if not path.exists():
        raise ModelError(f"there is no file {path}: check the path of the model")
    if path.is_dir():
        raise ModelError(f"{path} is a directory: give the path of the .pt2 file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): check its permissions"
        ) from None
    reason = _suspicious(content)
    if reason:
        raise ModelError(f"{path} {reason}")
    try:
        # The bytes that were looked through, whatever becomes of the file meanwhile.
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch raises anything where a file is of another version
        raise ModelError(
            f"{path} cannot be loaded by torch {torch.__version__} ({first_line(error)}): "
            "export it again with this version"
        ) from error
    return program


def _suspicious(content: bytes) -> str:
    """Why the file must not be loaded, in words that continue its name; "" where it may."""
    again = "save it again with torch.export.save of this version"
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        models = [name for name in files if name.startswith("models/") and name.endswith(".json")]
        if not models:
            return f"is no program of torch.export: {again}"
        if models != ["models/model.json"]:
            return "holds several programs: save one a file"
        if any(name.startswith("data/aotinductor") for name in files):
            return f"holds compiled code, which is not run here: {again}"
        for kind in ("weights", "constants"):
            place = f"data/{kind}/"
            if any(name.startswith(place) and name.endswith(".pt") for name in files):
                return f"keeps its {kind} in an old form that is a pickle: {again}"
            config = json.loads(archive.read(files[f"{place}model_{kind}_config.json"]))
            for entry in config["config"].values():
                held = str(entry["path_name"])
                if entry.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", held):
                    return "holds objects as pickles, which could run anything: keep to tensors"
        model = json.loads(archive.read(files["models/model.json"]))
        samples = files.get("data/sample_inputs/model.pt")
        pickled = archive.read(samples) if samples else b""
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, OSError):
        return f"is no file of torch.export, or only a part of one: {again}"
    if pickled and not _only_tensors(pickled):
        return "holds example inputs that are more than tensors and numbers: save it without them"
    return next(_faults(model), "")


def _only_tensors(pickled: bytes) -> bool:
    import torch

    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception:  # any, from unpickling: then torch.export.load would go on without limits
        return False
    return True


def _faults(part: Any) -> Iterator[str]:
    """What in a piece of the program's JSON could run something."""
    if isinstance(part, list):
        for each in part:
            yield from _faults(each)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key == "target" and "inputs" in part and not _OPERATORS.fullmatch(str(value)):
            yield f"calls {value}, which is no operator of ATen: export it without that"
        elif key == "as_operator" and not _OPERATORS.fullmatch(str(value)):
            yield f"passes {value} on, which is no operator of ATen: export it without that"
        elif key == "as_custom_obj":
            yield "holds objects of classes of its own: keep to tensors"
        elif key == "expr_str" and not _arithmetic(str(value)):
            yield f"has {str(value)[:80]!r} for an extent, which is no arithmetic"
        elif key in ("in_spec", "out_spec") and isinstance(value, str) and not _plain(value):
            yield "takes or returns containers other than tuples, lists and dicts: use those"
        elif not isinstance(value, str):
            yield from _faults(value)


def _arithmetic(text: str) -> bool:
    text = _DECLARED.sub(r"\1", text)
    words = re.findall(r"\w+", text)
    known = all(word in _WORDS or _SYMBOL.fullmatch(word) for word in words)
    return known and _EXPRESSION.fullmatch(text) is not None


def _plain(spec: str) -> bool:
    """Whether a tree of inputs or outputs, as JSON, needs no module to be imported."""

    def visit(node: Any) -> bool:
        if not isinstance(node, dict):
            return False
        children = node.get("children_spec") or []
        return node.get("type") in _CONTAINERS and all(map(visit, children))

    try:
        _, tree = json.loads(spec)
    except (ValueError, TypeError):
        return False
    return visit(tree)
