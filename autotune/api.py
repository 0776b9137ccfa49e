"""The rooms of the house in one line: what ``autotune.tune`` and ``autotune.compile`` do.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import ArtifactError, InputError, ModelError, TargetError
from search_spaces.task import Target
from tuning_db.drift import DISTURBED

if TYPE_CHECKING:
    from autotune.artifact.lock import Lock
    from autotune.artifact.manifest import ChosenSchedule, Manifest
    from autotune.artifact.reproduce import Reproduction
    from autotune.frontends import ImportCheck
    from autotune.frontends.base import ImportedModel
    from autotune.graph.model import FusedModel
    from autotune.measure.base import Runner
    from autotune.measure.timing import TimingPlan
    from autotune.measure.tracker import Device
    from autotune.search.progress import Progress, SearchSummary
    from autotune.search.samplers import SamplerFactory
    from autotune.search.verification import Verification

Shapes = Mapping[str, tuple[int, ...]]
Status = Callable[[str], None]

TRIALS = 64
"""Trials for each task, where neither trials nor seconds are given."""


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
class TuneResult:
    """How a tuning run went. ``compiled`` is None without an output, or after an interruption.

    ``untunable`` names the tasks that no search space matches; they are compiled as they are.
    """

    search: SearchSummary
    import_check: ImportCheck
    compiled: CompileResult | None
    untunable: tuple[str, ...] = ()


def tune(
    model: str | Path,
    input_shapes: Shapes | None = None,
    target: str | Target = "native",
    trials: int | None = None,
    seconds: float | None = None,
    database: str | Path = "tuning.db",
    output: str | Path | None = None,
    sampler: str | SamplerFactory = "cost-model",
    seed: int = 0,
    threads: int | None = None,
    device: Device | None = None,
    cores: int | None = None,
    cache: str = "cold",
    transfer: bool = True,
    until: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    status: Status | None = None,
) -> TuneResult:
    """Search schedules for the ONNX file ``model`` on this machine, and compile the best.

    ``input_shapes`` fixes the dimensions that the model leaves open. The search ends after
    ``trials`` measured candidates (earlier runs in the same ``database`` count) or ``seconds`` of
    search, whichever is first; without both, after ``TRIALS`` for each task. Everything measured is
    in the database as soon as it is, so that the same call continues after an interruption. The
    artifact is written to ``output`` if that is given. With ``device`` candidates are measured
    there, and ``target`` says what it is. ``cores`` is how many of this machine's may be used: by
    default those of one inference, with more the next candidates are built while one is measured.
    ``cache`` says where a kernel finds its weights: "cold" is in memory,
    as in a model, "hot" in the CPU's caches. With ``transfer`` the search begins with what the
    database knows of similar tasks and targets. ``until`` ends it once the tasks together take no
    longer than that: a time ("2.5ms"), or another engine's ("onnxruntime", "openvino:1.1" for 1.1
    times as fast), timed here before the search. ``progress`` is called after each
    measurement, ``status`` with a line before each long step.

    Raises a ``UserError`` with a sentence that says what to do. An interruption during the search
    (``KeyboardInterrupt``) is no error: ``result.search.stopped`` is then "interrupted".
    """
    from autotune.database import check_timing, open_database
    from autotune.goal import Goal
    from autotune.measure.timing import CACHES, TimingPlan
    from autotune.search.budget import Budget
    from autotune.search.plan import plan
    from autotune.search.samplers import SamplerChoice
    from autotune.search.settings import SearchSettings
    from autotune.target import check_measurable

    if trials is not None and trials < 1:
        raise InputError(f"the number of trials must be 1 or more, not {trials}")
    if seconds is not None and not seconds > 0:
        raise InputError(f"the time for the search must be more than nothing, not {seconds} s")
    if isinstance(sampler, str):
        SamplerChoice.parse(sampler)
    goal = None if until is None else Goal.parse(until)
    resolved = _resolve(target, threads, device.key if device is not None else "")
    if goal is not None and goal.engine and resolved.device:
        raise InputError(f"{goal.engine} cannot be timed on a device: give --until as a time")
    if device is not None:
        if cores is not None:
            raise InputError("--cores is about this machine, and --rpc measures on another one")
        from autotune.measure.tracker import Tracker

        Tracker.parse(device.tracker)
        if not resolved.device:
            raise TargetError(
                "a device that is measured over the network needs a name at its tracker: use --key"
            )
    elif resolved.device:
        raise TargetError(
            f"the target is the device {resolved.device!r}: say with --rpc HOST:PORT where the "
            "tracker is that knows it"
        )
    check_measurable(resolved)
    if output is not None:
        from autotune.artifact.output import check_output

        check_output(output)
    if cache not in CACHES:
        raise InputError(f"there is no cache {cache!r}: choose {' or '.join(CACHES)}")
    check_timing(database, resolved, cache)
    # The measuring processes start while the model is imported.
    with _runner(resolved, device, TimingPlan(cache=cache), cores, status) as runner:
        imported, import_check, fused = _prepared(model, input_shapes, resolved, status)

        from autotune.search.loop import tune_tasks
        from search_spaces.registry import matching
        from tuning_db.records import ModelRow

        tunable = [task for task in fused.tasks if any(matching(task, resolved))]
        untunable = tuple(t.workload.name for t in fused.tasks if t not in tunable)
        if trials is None and seconds is None:
            trials = TRIALS * len(tunable)
        budget = Budget(trials, seconds)
        enough = None
        if goal is not None:
            if goal.engine:
                _tell(status, f"timing {goal.engine}")
            enough = goal.reached_at(Path(model), imported, resolved.threads)
        settings = SearchSettings(
            budget=budget, sampler=sampler, seed=seed, cache=cache, transfer=transfer, until=enough
        )
        with open_database(database) as opened:
            _tell(status, plan(tunable, resolved, opened, settings))
            summary = tune_tasks(
                tunable,
                resolved,
                runner,
                opened,
                settings,
                progress,
                model=ModelRow(fused.digest, fused.name),
            )
    compiled = None
    if output is not None and summary.stopped != "interrupted":
        schedules = _schedules(fused, database)
        compiled = _build(imported, import_check, fused, schedules, output, status)
    return TuneResult(summary, import_check, compiled, untunable)


def verify(
    database: str | Path = "tuning.db",
    target: str | Target = "native",
    above: float = DISTURBED,
    threads: int | None = None,
    records: Sequence[int] | None = None,
    best: bool = False,
    slower: float = 1.1,
    progress: Callable[[Progress], None] | None = None,
    status: Status | None = None,
) -> Verification:
    """Measure candidates on this machine again, and tell which records no longer hold.

    ``records`` are ids; ``best`` means the best record of each task. Without either it is every
    candidate on ``target`` whose latest record was taken while a fixed kernel was more than
    ``above`` times slower than undisturbed. A record holds if its candidate takes no more than
    ``slower`` times as long, on a machine that is not disturbed. The finals of the tasks are held
    again. Raises a ``UserError``; an interruption is no error, ``result.interrupted`` is then true.
    """
    from autotune.database import chosen_records, open_database, timing_of
    from autotune.measure.local import LocalRunner
    from autotune.measure.timing import TimingPlan
    from autotune.search import verification
    from autotune.search.settings import SearchSettings
    from autotune.target import check_measurable

    for value, what in ((above, "a disturbed machine"), (slower, "what no longer holds")):
        if not value > 1:
            raise InputError(f"{what} is more than 1 times slower, not {value}")
    resolved = _resolve(target, threads)
    check_measurable(resolved)
    with open_database(database, create=False) as opened:
        if opened.target(resolved.digest) is None:
            known = ", ".join(f"{row.model} ({row.digest[:12]})" for row in opened.targets())
            raise TargetError(
                f"{database} holds no records of this target (of {resolved.threads} threads), but "
                f"of {known or 'none'}: name the target with --target and --threads"
            )
        chosen = chosen_records(opened, resolved, records, best)
        _tell(status, "measuring records again")
        settings = SearchSettings(sampler="random", cache=timing_of(opened, resolved))
        with LocalRunner(resolved, plan=TimingPlan(cache=settings.cache)) as runner:
            return verification.verify(
                opened,
                resolved,
                runner,
                chosen,
                above=above,
                slower=slower,
                settings=settings,
                progress=progress,
            )


def compile(
    model: str | Path,
    input_shapes: Shapes | None = None,
    target: str | Target = "native",
    database: str | Path | None = None,
    output: str | Path = "model.artifact",
    threads: int | None = None,
    key: str = "",
    lock: str | Path | None = None,
    status: Status | None = None,
) -> CompileResult:
    """Compile the ONNX file ``model`` into the directory ``output`` without measuring anything.

    Schedules come from ``database``, or from the lock file ``lock`` (and so does the target, where
    none is named), and where neither has one for a task from the default of the task's search
    space; ``result.summary`` says how many. ``key`` names the device whose records they are, where
    it was tuned over the network. From the same model, database or lock file, and versions the
    same bytes are written. Raises a ``UserError``.
    """
    from autotune.artifact.lock import locked_target, read_lock
    from autotune.artifact.output import check_output

    locked = None
    if lock is not None:
        if database is not None:
            raise InputError("schedules come from a database or from a lock file: name one of them")
        locked = read_lock(lock)
        made_for = locked_target(locked, lock)
        if target == "native":
            target = made_for
    resolved = _resolve(target, threads, key)
    if locked is not None and resolved != made_for:
        raise InputError(
            f"{lock} is for {made_for.model} with {made_for.threads} threads, not for "
            f"{resolved.model} with {resolved.threads}: tune for that and lock it, too"
        )
    check_output(output)
    _check_readable(database)
    imported, import_check, fused = _prepared(model, input_shapes, resolved, status)
    schedules = locked.schedules if locked is not None else _schedules(fused, database)
    return _build(imported, import_check, fused, schedules, output, status)


def lock(
    model: str | Path,
    output: str | Path,
    input_shapes: Shapes | None = None,
    target: str | Target = "native",
    database: str | Path = "tuning.db",
    threads: int | None = None,
    key: str = "",
    status: Status | None = None,
) -> Lock:
    """Write the best schedules that ``database`` has for ``model`` to the lock file ``output``.

    Arguments as for ``compile``, which takes the file in place of the database. Raises a
    ``UserError``.
    """
    from autotune.artifact.build import versions
    from autotune.artifact.lock import lock_of
    from autotune.files import replacing

    resolved = _resolve(target, threads, key)
    _check_readable(database)
    _, _, fused = _prepared(model, input_shapes, resolved, status)
    made = lock_of(fused, _schedules(fused, database), versions())
    with replacing(Path(output)) as file:
        file.write(made.text().encode())
    return made


def reproduce(
    artifact: str | Path,
    model: str | Path,
    database: str | Path | None = None,
    lock: str | Path | None = None,
    status: Status | None = None,
) -> Reproduction:
    """Build ``artifact`` again from ``model`` and the records that its manifest names.

    The records are looked up in ``database`` or in ``lock``, whatever is best there by now; an
    artifact of defaults needs neither. Nothing is kept. Raises a ``UserError``, also where a record
    is not to be had.
    """
    import tempfile

    from autotune.artifact.lock import read_lock
    from autotune.artifact.reproduce import compare
    from autotune.artifact.schedules import named_among, named_from
    from autotune.database import open_database
    from autotune.runtime import read_manifest
    from autotune.target import from_fields

    manifest = read_manifest(artifact)
    made_for = _resolve(from_fields(manifest["target"], f"the target of {artifact}"), None)
    tasks = manifest["tasks"]
    if lock is not None:
        schedules = named_among(read_lock(lock).schedules, tasks, lock)
    elif database is not None:
        with open_database(database, create=False, read_only=True) as opened:
            schedules = named_from(opened, made_for, tasks)
    else:
        schedules = named_among({}, tasks, None)
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest["inputs"]}
    try:
        imported, import_check, fused = _prepared(model, shapes, made_for, status)
    except InputError as error:
        raise InputError(f"{artifact} was not made from {model}: {error}") from error
    if fused.digest != manifest["model"]["digest"]:
        raise InputError(
            f"{artifact} was not made from {model}, or not as it is now: its digest is "
            f"{manifest['model']['digest'][:12]}, and that of the file {fused.digest[:12]}"
        )
    with tempfile.TemporaryDirectory(prefix="autotune-") as folder:
        again = Path(folder) / "artifact"
        _build(imported, import_check, fused, schedules, again, status)
        return compare(Path(artifact), again)


def _check_readable(database: str | Path | None) -> None:
    from autotune.database import open_database

    if database is not None:
        with open_database(database, create=False, read_only=True):
            pass


def _schedules(fused: FusedModel, database: str | Path | None) -> dict[str, ChosenSchedule]:
    """The best that ``database`` has for the tasks of ``fused``; nothing where there is none."""
    from autotune.artifact.schedules import chosen_from
    from autotune.database import open_database

    if database is None:
        return {}
    with open_database(database, create=False, read_only=True) as opened:
        return chosen_from(opened, fused)


def _runner(
    target: Target,
    device: Device | None,
    plan: TimingPlan,
    cores: int | None,
    status: Status | None,
) -> Runner:
    """What measures candidates: this machine, or the device."""
    if device is None:
        from autotune.measure.local import LocalRunner

        return LocalRunner(target, plan=plan, cores=cores)
    from autotune.measure.rpc import RPCRunner

    return RPCRunner(
        target,
        device.tracker,
        wait_seconds=device.wait_seconds,
        compiler=device.compiler,
        plan=plan,
        status=status,
    )


def _resolve(target: str | Target, threads: int | None, key: str = "") -> Target:
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


def _prepared(
    model: str | Path, input_shapes: Shapes | None, target: Target, status: Status | None
) -> tuple[ImportedModel, ImportCheck, FusedModel]:
    """The model inside the house: imported, compared with the original, fused."""
    from autotune.frontends import import_model, verify_import
    from autotune.frontends.verify import naive_build

    _tell(status, f"importing {model}")
    imported = import_model(model, input_shapes)
    from autotune.graph.pipeline import optimise

    _tell(status, "fusing operators")
    try:
        fused = optimise(imported, target)
    except Exception:
        naive_build(imported)  # if TVM alone cannot compile it either, that is what is told
        raise
    _tell(status, "comparing the import with the original model")
    if not _runs_here(target):
        return imported, verify_import(imported), fused
    from autotune.artifact.build import runnable

    try:
        # Fused and scheduled by default: seconds, where the plain module takes a minute.
        return imported, verify_import(imported, lambda _: runnable(fused)), fused
    except ModelError:
        # Whose fault is it? The import alone, compiled without anything of ours, decides.
        return imported, verify_import(imported), fused


def _build(
    imported: ImportedModel,
    import_check: ImportCheck,
    fused: FusedModel,
    schedules: Mapping[str, ChosenSchedule],
    output: str | Path,
    status: Status | None,
) -> CompileResult:
    """Compile and compare with the original. What computes something else is never written.

    LLVM is known to miscompile some kernels for wide vectors, and defaults were not measured: if
    the artifact is wrong it is built again with LLVM's optimiser held back, then from defaults.
    """
    from autotune.artifact.build import build

    ways: list[tuple[Mapping[str, ChosenSchedule], bool]] = [(schedules, False), (schedules, True)]
    if schedules:
        ways.append(({}, True))
    runs_here = _runs_here(fused.target)
    checks: list[ImportCheck] = []
    notes: list[str] = []
    for chosen, safe in ways:
        found = sum(task.workload.key in chosen for task in fused.tasks)
        tuned = f": schedules of {found} of {len(fused.tasks)} tasks are known" if found else ""
        _tell(status, f"compiling{tuned}")

        def compare(draft: Path) -> None:
            checks.append(_checked(imported, draft))

        try:
            manifest = build(
                fused, chosen, output, safe=safe, notes=notes, check=compare if runs_here else None
            )
        except ModelError as error:
            notes.append(f"a first build was discarded: {error}")
            _tell(status, f"the compiled model is wrong and is built again more carefully: {error}")
            continue
        return CompileResult(Path(output), manifest, import_check, checks[-1] if checks else None)
    raise ArtifactError(
        f"{fused.name} cannot be compiled to something that agrees with the original, so nothing "
        f"was written; please report the model ({notes[-1]})"
    )


def _checked(imported: ImportedModel, draft: Path) -> ImportCheck:
    from autotune.frontends import verify_import
    from autotune.runtime import load

    # Another seed than the import was compared with: fresh inputs.
    return verify_import(imported, lambda _: load(draft), seed=1)


def _runs_here(target: Target) -> bool:
    from autotune.target import check_measurable

    try:
        check_measurable(target)
    except TargetError:
        return False
    return not target.device


def _tell(status: Status | None, line: Any) -> None:
    if status is not None:
        status(str(line))
