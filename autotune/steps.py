"""The rooms of the house one after the other, as tuning and compiling walk through them.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import ArtifactError, InputError, ModelError, TargetError
from search_spaces.task import Target

if TYPE_CHECKING:
    from autotune.artifact.build import Compiled
    from autotune.artifact.manifest import ChosenSchedule, Manifest
    from autotune.frontends import ImportCheck
    from autotune.frontends.base import ImportedModel
    from autotune.frontends.verify import Samples
    from autotune.graph.model import FusedModel
    from search_spaces.graph.base import Choices

Model = Any
"""A path, or a torch.nn.Module or torch.export.ExportedProgram: torch may not be installed."""

Shapes = Mapping[str, tuple[int, ...]]
Status = Callable[[str], None]


@dataclass(frozen=True)
class CompileResult:
    """An artifact and what is known of it.

    ``import_check`` compares the imported model with its original, ``check`` the artifact; that is
    None where the artifact cannot run on this machine.
    """

    output: Path
    manifest: Manifest = field(repr=False)
    import_check: ImportCheck
    check: ImportCheck | None

    @property
    def summary(self) -> str:
        """One line: "41 of 44 tasks tuned, 3 default"."""
        return self.manifest.summary


@dataclass(frozen=True)
class Prepared:
    """A model inside the house: imported, compared with the original, fused.

    ``schedules`` are those it is to be compiled with. ``compiled`` is what they make, where that
    was compared and is right; None elsewhere. ``samples`` are inputs that nothing was compared with
    yet, and what the original makes of them; None where they are not drawn yet.
    """

    imported: ImportedModel
    check: ImportCheck
    fused: FusedModel
    schedules: Mapping[str, ChosenSchedule] = field(default_factory=dict)
    compiled: Compiled | None = None
    samples: Samples | None = field(default=None, repr=False)


def resolved_target(target: str | Target, threads: int | None, key: str = "") -> Target:
    """The target, with TVM's thread pool made for it. ``key`` is the device that it is."""
    from dataclasses import replace

    from autotune.target import resolve
    from autotune.threads import set_threads

    if isinstance(target, Target):
        found = target if threads is None else replace(target, threads=threads)
    else:
        found = resolve(target, threads)
    if key and found.device not in ("", key):
        raise TargetError(
            f"the target is the device {found.device!r}, not {key!r}: correct --key, or the file"
        )
    found = replace(found, device=key or found.device)
    set_threads(found.threads)
    return found


def source_of(model: Model, example_inputs: Any) -> Model:
    """What is imported: the path, what a frontend takes, or what torch.export makes of a module.

    Raises a ``UserError`` where ``example_inputs`` are missing, or are given with a path.
    """
    if not isinstance(model, str | Path):
        from autotune.frontends.registry import taken
        from autotune.frontends.torch_export import exported

        if example_inputs is None and taken(model):
            return model
        return exported(model, example_inputs)
    if example_inputs is not None:
        raise InputError("example_inputs are for a module: a file says what its inputs are")
    return model


def is_onnx(source: Model) -> bool:
    """Whether ``source`` is a file that engines which read ONNX can be given."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() != ".pt2"


def told(model: Model) -> str:
    """The model as a line of progress names it."""
    if isinstance(model, str | Path):
        return str(model)
    from autotune.frontends.torch_export import TorchFrontend, name_of

    return name_of(model) if TorchFrontend().takes(model) else type(model).__name__


def prepared(
    model: Model,
    input_shapes: Shapes | None,
    target: Target,
    status: Status | None,
    choices: Callable[[ImportedModel], Choices | None] | None = None,
    schedules: Callable[[FusedModel], Mapping[str, ChosenSchedule]] | None = None,
) -> Prepared:
    """The model inside the house.

    ``choices`` finds those for its graph; the default ones are taken where there are none.
    ``schedules`` finds those to compile it with: what they make is compared with the original then,
    and ``built`` has only to write it.
    """
    from autotune.frontends import import_model
    from autotune.frontends.verify import Disagreement
    from autotune.imports import import_apart

    import_apart("optuna")
    tell(status, f"importing {told(model)}")
    imported: ImportedModel | None = import_model(model, input_shapes)
    failure: ModelError | None = None
    while imported is not None:
        try:
            return _compared(imported, target, status, choices, schedules)
        except ModelError as error:
            # The first cure is the one that speaks of what the user exported.
            failure = failure or error
        imported = imported.again()
    assert failure is not None
    raise failure.located() if isinstance(failure, Disagreement) else failure


def _compared(
    imported: ImportedModel,
    target: Target,
    status: Status | None,
    choices: Callable[[ImportedModel], Choices | None] | None,
    schedules: Callable[[FusedModel], Mapping[str, ChosenSchedule]] | None,
) -> Prepared:
    """``imported`` fused, and compared with its original. Raises ``ModelError``."""
    from autotune.artifact.build import compiled, runnable
    from autotune.frontends import verify_import
    from autotune.frontends.verify import naive_build, samples_of
    from autotune.graph.pipeline import optimise
    from autotune.precision.agreement import in_full
    from autotune.precision.told import shortened

    chosen = None if choices is None else choices(imported)
    if shortened(chosen):
        # What is rounded says nothing of the import: that is compared as it is in float32.
        full = _compared(imported, target, status, lambda _: in_full(chosen), None)
        fused = optimise(imported, target, chosen)
        return Prepared(imported, full.check, fused, {} if schedules is None else schedules(fused))
    tell(status, "fusing operators")
    try:
        fused = optimise(imported, target, chosen)
    except Exception:
        naive_build(imported)  # if TVM alone cannot compile it either, that is what is told
        raise
    tell(status, "comparing the import with the original model")
    known = {} if schedules is None else schedules(fused)
    if not runs_here(target):
        return Prepared(imported, verify_import(imported), fused, known)
    made: Compiled | None = None
    try:
        # Of the original at once, also what the artifact is compared with: while its engine holds
        # all weights, nothing else of ours should.
        samples, later = samples_of(imported, 0, 1)
        # Fused and scheduled: seconds, where the plain module takes a minute.
        if schedules is not None:
            made = compiled(fused, known)
        run = runnable(fused) if made is None else made.runnable()
        check = verify_import(imported, lambda _: run, samples=samples)
        return Prepared(imported, check, fused, known, made, later)
    except ModelError:
        # Whose fault is it? The import alone, compiled without anything of ours, decides.
        return Prepared(imported, verify_import(imported), fused, known)
    except Exception:
        verify_import(imported)
        raise


def best_schedules(fused: FusedModel, database: str | Path | None) -> dict[str, ChosenSchedule]:
    """The best that ``database`` has for the tasks of ``fused``; nothing where there is none."""
    from autotune.artifact.schedules import chosen_from
    from autotune.database import open_database

    if database is None:
        return {}
    with open_database(database, create=False, read_only=True) as opened:
        return chosen_from(opened, fused)


def built(prepared: Prepared, output: str | Path, status: Status | None) -> CompileResult:
    """Compile and compare with the original. What computes something else is never written.

    LLVM is known to miscompile some kernels for wide vectors, and defaults were not measured: if
    the artifact is wrong it is built again with LLVM's optimiser held back, then from defaults.
    """
    from autotune.artifact.build import build

    imported, fused, made = prepared.imported, prepared.fused, prepared.compiled
    here = runs_here(fused.target)
    checks: list[ImportCheck] = []
    notes: list[str] = []
    for chosen, safe in ways(prepared):
        found = sum(task.workload.key in chosen for task in fused.tasks)
        tuned = f": schedules of {found} of {len(fused.tasks)} tasks are known" if found else ""
        tell(status, f"compiling{tuned}")

        def compare(draft: Path) -> None:
            checks.append(checked(imported, draft, fused, prepared.samples))

        try:
            manifest = build(
                fused,
                chosen,
                output,
                safe=safe,
                made=made,
                notes=notes,
                check=compare if here else None,
            )
        except ModelError as error:
            made = None
            notes.append(f"a first build was discarded: {error}")
            tell(status, f"the compiled model is wrong and is built again more carefully: {error}")
            continue
        return CompileResult(Path(output), manifest, prepared.check, checks[-1] if checks else None)
    raise ArtifactError(
        f"{fused.name} cannot be compiled to something that agrees with the original, so nothing "
        f"was written; please report the model ({notes[-1]})"
    )


def ways(prepared: Prepared) -> list[tuple[Mapping[str, ChosenSchedule], bool]]:
    """How to build it, until it is right: with which schedules, and whether LLVM is held back."""
    schedules = prepared.schedules
    found = [(schedules, False), (schedules, True)]
    return [*found, ({}, True)] if schedules else found


def checked(
    imported: ImportedModel, draft: Path, fused: FusedModel, samples: Samples | None = None
) -> ImportCheck:
    """The artifact ``draft`` of ``fused`` beside the original.

    Where some of it is computed in shorter numbers than the original it is compared with what that
    means. ``samples`` are those of the ``Prepared`` that it was made from. Raises ``ModelError``
    where they differ.
    """
    from autotune.frontends import verify_import
    from autotune.precision.agreement import check_meaning
    from autotune.precision.told import shortened
    from autotune.runtime import load

    if shortened(fused.choices.get("spaces")):
        return check_meaning(imported, fused, load(draft), seed=1)
    # Another seed than the import was compared with: fresh inputs.
    return verify_import(imported, lambda _: load(draft), seed=1, samples=samples)


def runs_here(target: Target) -> bool:
    """Whether code for ``target`` is for this machine."""
    from autotune.target import check_measurable

    try:
        check_measurable(target)
    except TargetError:
        return False
    return not target.device


def tell(status: Status | None, line: Any) -> None:
    if status is not None:
        status(str(line))
