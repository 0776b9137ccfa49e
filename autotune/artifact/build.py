"""From a fused model and chosen schedules to an artifact: a directory that runs by itself."""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotune.artifact.constants import constant_outputs
from autotune.artifact.link import link, linker
from autotune.artifact.manifest import (
    CallEntry,
    ChosenSchedule,
    FileEntry,
    Manifest,
    TaskEntry,
)
from autotune.artifact.output import replacing
from autotune.artifact.schedules import scheduled
from autotune.artifact.weights import SharedWeights, lifted
from autotune.compiler import PIPELINE, pass_context
from autotune.graph.model import FusedModel
from autotune.measure.kernel import build_kernel
from autotune.runtime import LIBRARY, MANIFEST, WEIGHTS, file_digest
from autotune.versions import installed
from search_spaces.analysis import arithmetic
from search_spaces.task import Target

Refused = dict[str, dict[str, str]]
"""By workload key: what must not be used, by space name (or "record"), and why."""

PACKAGES = {
    "autotune": "autotune",
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "onnx": "onnx",
    "onnxslim": "onnxslim",
}
"""What the bytes of each artifact depend on, by the names that a manifest gives them."""

SAFE = "compiled with LLVM's optimiser at level 1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compiled:
    """``fused`` with ``schedules``, ready to be compared first and then written by ``build``."""

    fused: FusedModel
    schedules: Mapping[str, ChosenSchedule]
    executable: Any = field(repr=False)
    tasks: tuple[TaskEntry, ...] = field(repr=False)
    weights: list[Any] = field(repr=False)
    """Tensors of TVM, which the program takes after its inputs. Empty once ``build`` wrote them."""
    calls: tuple[CallEntry, ...] = field(default=(), repr=False)

    def runnable(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """As the function ``runnable``, and the executable stays as it is.

        One that is linked in this process would be written with other bytes.
        """
        import tvm

        with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
            library = _export(self.executable, Path(folder), self.fused.target)
            program = tvm.runtime.load_module(str(library))
            return _running(self.fused, program, self.weights)


def compiled(
    fused: FusedModel, schedules: Mapping[str, ChosenSchedule], *, safe: bool = False
) -> Compiled:
    """Compile ``fused`` once, for a comparison and for ``build``; arguments as there."""
    return Compiled(fused, schedules, *_compiled(fused, schedules, {}, safe, apart=True))


def build(
    fused: FusedModel,
    schedules: Mapping[str, ChosenSchedule],
    output: str | Path,
    *,
    refused: Mapping[str, Mapping[str, str]] | None = None,
    safe: bool = False,
    made: Compiled | None = None,
    notes: Sequence[str] = (),
    check: Callable[[Path], None] | None = None,
) -> Manifest:
    """Compile ``fused`` into the directory ``output`` and return its manifest.

    ``schedules`` holds the schedule of each tuned task by workload key; the others get the default
    of their search space. Where a schedule does not apply or does not compile the next best takes
    its place, and the manifest says so. ``refused`` holds what must not be used (see ``Refused``);
    ``safe`` keeps LLVM's optimiser at its lowest useful level; ``made`` is what ``compiled``
    made of the same arguments, where it was asked before, and is used up; ``notes`` are kept in the
    manifest.
    ``check`` is given the finished directory before it takes its place; if it raises, nothing is
    written. From equal arguments the same bytes are written. Raises ``ArtifactError`` where the
    directory cannot be written or nothing can link.
    """
    output = Path(output)
    linker(fused.target.triple)  # says what is missing before minutes of work
    spoilt: Refused = {key: dict(names) for key, names in (refused or {}).items()}
    with replacing(output) as draft:
        if made is None:
            made = Compiled(
                fused, schedules, *_compiled(fused, schedules, spoilt, safe, apart=True)
            )
        shared = SharedWeights()
        places = shared.add(made.weights)
        entry = shared.write(draft / WEIGHTS) if places else None
        # Whoever checks the artifact has them in memory again, from the file.
        del shared
        made.weights.clear()
        manifest = write(made, draft, [*notes, *([SAFE] if safe else [])], places, entry)
        if check is not None:
            check(draft)
    return manifest


def write(
    made: Compiled,
    folder: Path,
    notes: Sequence[str],
    weights: Sequence[Mapping[str, Any]],
    file: FileEntry | None = None,
    shared: str = "",
) -> Manifest:
    """The library and the manifest of ``made``, in the directory ``folder``.

    ``weights`` says where those of the program lie: in ``file`` of the same directory, or in one of
    the digest ``shared`` in the directory above.
    """
    fused = made.fused
    library = _export(made.executable, folder, fused.target)
    files = {LIBRARY: FileEntry(file_digest(library), library.stat().st_size)}
    manifest = Manifest(
        model={"name": fused.name, "digest": fused.digest},
        inputs=fused.inputs,
        outputs=fused.outputs,
        target=fused.target,
        versions=installed(PACKAGES | dict(fused.packages)),
        graph=dict(fused.choices),
        tasks=made.tasks,
        files=files | ({WEIGHTS: file} if file is not None else {}),
        weights=tuple(weights),
        shared_weights=shared,
        constant_outputs=constant_outputs(fused),
        calls=made.calls,
        notes=tuple(notes),
    )
    (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def executable(
    fused: FusedModel, schedules: Mapping[str, ChosenSchedule], safe: bool = False
) -> Any:
    """``fused`` with ``schedules``, as a Relax executable for a virtual machine of this process.

    Its weights are inside. ``safe`` as for ``build``.
    """
    return _compiled(fused, schedules, {}, safe, apart=False)[0]


def runnable(
    fused: FusedModel, schedules: Mapping[str, ChosenSchedule] | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """``fused`` compiled with ``schedules`` in this process: arrays by name to arrays by name.

    Tasks without a schedule get their default. For a comparison before anything is written or
    tuned; an artifact is made by ``build``.
    """
    return _running(fused, executable(fused, schedules or {}))


def _running(
    fused: FusedModel, program: Any, weights: Sequence[Any] = ()
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """``program``, an executable or a library of ``fused``: arrays by name to arrays by name."""
    import numpy as np
    import tvm

    from autotune.machine import Machine

    machine = Machine(program, fused.target.threads, weights)

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = [tvm.runtime.tensor(np.asarray(inputs[s.name], order="C")) for s in fused.inputs]
        result = machine(*given)
        values = [result] if hasattr(result, "numpy") else list(result)
        return {s.name: v.numpy() for s, v in zip(fused.outputs, values, strict=True)}

    return run


def _export(executable: Any, folder: Path, target: Target) -> Path:
    """The library that is made of ``executable``, and nothing else, in ``folder``."""
    library, objects = folder / LIBRARY, folder / "objects"
    objects.mkdir()
    compiler = shlex.join(linker(target.triple))
    executable.export_library(
        str(library), fcompile=link, compiler=compiler, workspace_dir=str(objects)
    )
    for file in objects.iterdir():
        file.unlink()
    objects.rmdir()
    library.chmod(0o644)
    return library


def _compiled(
    fused: FusedModel,
    schedules: Mapping[str, ChosenSchedule],
    spoilt: Refused,
    safe: bool,
    *,
    apart: bool,
) -> tuple[Any, tuple[TaskEntry, ...], list[Any], tuple[CallEntry, ...]]:
    """The Relax executable, how each task was compiled, the weights it is to be given, its calls.

    The weights are taken out of it with ``apart``; without there are none.
    """
    from autotune.graph.origins import kernel_calls

    while True:
        module, tasks = _with_schedules(fused, schedules, spoilt)
        try:
            program, weights = _lowered(module, fused.target, safe, apart)
            calls = tuple(CallEntry(name, names) for name, names in kernel_calls(module))
            return program, tasks, weights, calls
        except Exception as error:  # TVM raises anything; which function it was has to be found
            found = _guilty(fused, schedules, spoilt, tasks)
            if not found:
                raise
            _log.info("%d schedules do not compile and are replaced: %s", len(found), error)
            for key, names in found.items():
                spoilt.setdefault(key, {}).update(names)


def _with_schedules(
    fused: FusedModel, schedules: Mapping[str, ChosenSchedule], spoilt: Refused
) -> tuple[Any, tuple[TaskEntry, ...]]:
    """``fused.module`` with each PrimFunc scheduled, weights not packed yet."""
    import tvm
    from tvm import relax

    with tvm.target.Target(fused.target.tvm()):
        # A reshape is no work where tensors are dense: it must be seen before it is scheduled.
        module = relax.transform.RewriteDataflowReshape()(fused.module)
        module = relax.transform.DeadCodeElimination()(module)
    present = {variable.name_hint for variable in module.get_global_vars()}
    names: dict[str, list[str]] = {}
    for name, key in fused.functions.items():
        if name in present:
            names.setdefault(key, []).append(name)
    functions = dict(module.functions)
    entries = []
    for task in fused.tasks:
        key = task.workload.key
        if key not in names:
            continue
        function, entry = scheduled(task, fused.target, schedules.get(key), spoilt.get(key, {}))
        multiplied = arithmetic(module[names[key][0]])
        own = tuple(sorted(names[key]))
        entries.append(replace(entry, functions=own, arithmetic=multiplied))
        # As private as what it replaces: a function with a symbol of its own outlives its calls.
        function = function.without_attr("global_symbol")
        for name in names[key]:
            functions[module.get_global_var(name)] = function
    return tvm.IRModule(functions, attrs=module.attrs), tuple(entries)


def _lowered(module: Any, target: Target, safe: bool, apart: bool) -> tuple[Any, list[Any]]:
    import tvm
    from tvm import relax

    from autotune.graph.tasks import rooted

    spec = target.tvm()
    if safe:
        spec["opt-level"] = 1
    made = tvm.target.Target(spec)
    module = rooted(module)
    with made, pass_context(target):
        packed = tvm.transform.Sequential(
            [
                relax.transform.SplitLayoutRewritePreproc(),
                # Runs the packing of constant weights, here and now.
                relax.transform.FoldConstant(),
                relax.transform.DeadCodeElimination(),
            ]
        )(module)
        weights: list[Any] = []
        if apart:
            packed, weights = lifted(packed)
        built = relax.build(packed, made, relax_pipeline="default", tir_pipeline=PIPELINE)
    return built, weights


def _guilty(
    fused: FusedModel,
    schedules: Mapping[str, ChosenSchedule],
    spoilt: Refused,
    tasks: tuple[TaskEntry, ...],
) -> Refused:
    """Which schedules do not compile by themselves."""
    import tvm

    known = {task.workload.key: task for task in fused.tasks}
    found: Refused = {}
    for entry in tasks:
        if entry.source == "unscheduled":
            continue
        task = known[entry.workload]
        function, _ = scheduled(
            task, fused.target, schedules.get(entry.workload), spoilt.get(entry.workload, {})
        )
        try:
            build_kernel(tvm.IRModule({"main": function}), task.workload, fused.target)
        except Exception as error:  # as above
            name = "record" if entry.source == "record" else entry.space
            found[entry.workload] = {name: f"does not compile ({type(error).__name__})"}
    return found
