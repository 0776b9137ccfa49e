"""From a model and what is known of it to an artifact, without measuring anything.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError
from autotune.several import CompiledSizes, built_sizes, each_size
from autotune.steps import (
    CompileResult,
    Model,
    Prepared,
    Shapes,
    Status,
    best_schedules,
    built,
    prepared,
    resolved_target,
    source_of,
    told,
)
from search_spaces.task import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autotune.artifact.lock import Lock
    from autotune.artifact.manifest import ChosenSchedule
    from autotune.artifact.reproduce import Reproduction
    from autotune.frontends.base import ImportedModel
    from autotune.graph.model import FusedModel
    from search_spaces.graph.base import Choices


def compile(
    model: Model,
    input_shapes: Shapes | Sequence[Shapes] | None = None,
    target: str | Target = "native",
    database: str | Path | None = None,
    output: str | Path = "model.artifact",
    threads: int | None = None,
    key: str = "",
    lock: str | Path | None = None,
    status: Status | None = None,
    example_inputs: Any = None,
) -> CompileResult | CompiledSizes:
    """Compile ``model`` into the directory ``output`` without measuring anything.

    ``model`` is an ONNX file, a .pt2 file, a ``torch.export.ExportedProgram``, or a
    ``torch.nn.Module`` with ``example_inputs``: a tensor, a sequence of arguments, or a mapping of
    arguments by name.

    Schedules come from ``database``, or from the lock file ``lock`` (and so does the target, where
    none is named), and where neither has one for a task from the default of the task's search
    space; ``result.summary`` says how many. ``key`` names the device whose records they are, where
    it was tuned over the network. From the same model, database or lock file, and versions the
    same bytes are written. Where ``input_shapes`` are several, the artifact holds a program for
    each and their weights once, and takes the one that fits when it is called. Raises a
    ``UserError``.
    """
    from autotune.artifact.lock import read_lock
    from autotune.artifact.output import check_output
    from autotune.graph.choices import check_choices
    from autotune.graphs import kept_choices
    from autotune.target import from_fields

    source = source_of(model, example_inputs)
    sizes = each_size(input_shapes)
    locked = None
    if lock is not None:
        if database is not None:
            raise InputError("schedules come from a database or from a lock file: name one of them")
        if len(sizes) > 1:
            raise InputError("a lock file is for one size: compile several from a database")
        locked = read_lock(lock)
        made_for = from_fields(locked.target, f"the target of {lock}")
        check_choices(locked.graph, str(lock))
        if target == "native":
            target = made_for
    resolved = resolved_target(target, threads, key)
    if locked is not None and resolved != made_for:
        raise InputError(
            f"{lock} is for {made_for.model} with {made_for.threads} threads, not for "
            f"{resolved.model} with {resolved.threads}: tune for that and lock it, too"
        )
    check_output(output)
    _check_readable(database)

    def choices(imported: ImportedModel) -> Choices | None:
        return locked.graph if locked else kept_choices(database, imported, resolved)

    def schedules(fused: FusedModel) -> Mapping[str, ChosenSchedule]:
        return locked.schedules if locked is not None else best_schedules(fused, database)

    ready = [prepared(source, shapes, resolved, status, choices, schedules) for shapes in sizes]
    return built_sizes(ready, output, status) if len(sizes) > 1 else built(ready[0], output, status)


def lock(
    model: Model,
    output: str | Path,
    input_shapes: Shapes | None = None,
    target: str | Target = "native",
    database: str | Path = "tuning.db",
    threads: int | None = None,
    key: str = "",
    status: Status | None = None,
    example_inputs: Any = None,
) -> Lock:
    """Write the best schedules that ``database`` has for ``model`` to the lock file ``output``.

    Arguments as for ``compile``, which takes the file in place of the database. Raises a
    ``UserError``.
    """
    from autotune.artifact.build import PACKAGES
    from autotune.artifact.lock import lock_of
    from autotune.files import replacing
    from autotune.graphs import kept_choices
    from autotune.versions import installed

    source = source_of(model, example_inputs)
    resolved = resolved_target(target, threads, key)
    _check_readable(database)
    ready = prepared(
        source, input_shapes, resolved, status, lambda m: kept_choices(database, m, resolved)
    )
    fused = ready.fused
    versions = installed(PACKAGES | dict(fused.packages))
    made = lock_of(fused, best_schedules(fused, database), versions)
    with replacing(Path(output)) as file:
        file.write(made.text().encode())
    return made


def reproduce(
    artifact: str | Path,
    model: Model,
    database: str | Path | None = None,
    lock: str | Path | None = None,
    status: Status | None = None,
    example_inputs: Any = None,
) -> Reproduction:
    """Build ``artifact`` again from ``model`` and the records that its manifest names.

    The records are looked up in ``database`` or in ``lock``, whatever is best there by now; an
    artifact of defaults needs neither. Nothing is kept. Raises a ``UserError``, also where a record
    is not to be had.
    """
    import tempfile

    from autotune.artifact.reproduce import compare
    from autotune.runtime import any_manifest, read_manifest

    manifest = any_manifest(artifact)
    if manifest.get("shared_weights"):
        raise InputError(f"{artifact} is one size of an artifact: name the directory above it")
    source = source_of(model, example_inputs)
    sizes = [Path(artifact, name) for name in manifest.get("sizes", ())]
    ready = [
        _as_made(one, read_manifest(one), source, database, lock, status)
        for one in sizes or [Path(artifact)]
    ]
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        again = Path(folder) / "artifact"
        if sizes:
            built_sizes(ready, again, status)
        else:
            built(ready[0], again, status)
        return compare(Path(artifact), again)


def _as_made(
    artifact: Path,
    manifest: Mapping[str, Any],
    source: Model,
    database: str | Path | None,
    lock: str | Path | None,
    status: Status | None,
) -> Prepared:
    """The model with what ``artifact`` was made of, ready to be built."""
    from autotune.artifact.lock import read_lock
    from autotune.artifact.schedules import named, record_named
    from autotune.database import open_database
    from autotune.graph.choices import check_choices
    from autotune.target import from_fields

    made_for = resolved_target(from_fields(manifest["target"], f"the target of {artifact}"), None)
    tasks = manifest["tasks"]
    if lock is not None:
        locked = read_lock(lock).schedules
        schedules = named(tasks, lambda task: locked.get(task["workload"]), lock)
    elif database is not None:
        with open_database(database, create=False, read_only=True) as opened:
            schedules = named(tasks, lambda task: record_named(opened, made_for, task), database)
    else:
        schedules = named(tasks, lambda task: None, None)
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest["inputs"]}
    choices = manifest["graph"].get("spaces", {})
    check_choices(choices, str(artifact))
    try:
        ready = prepared(source, shapes, made_for, status, lambda _: choices, lambda _: schedules)
    except InputError as error:
        raise InputError(f"{artifact} was not made from {told(source)}: {error}") from error
    if ready.fused.digest != manifest["model"]["digest"]:
        raise InputError(
            f"{artifact} was not made from {told(source)}, or not as it is now: its digest is "
            f"{manifest['model']['digest'][:12]}, and that of the file {ready.fused.digest[:12]}"
        )
    return ready


def _check_readable(database: str | Path | None) -> None:
    from autotune.database import open_database

    if database is not None:
        with open_database(database, create=False, read_only=True):
            pass
