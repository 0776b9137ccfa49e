"""From a job file to a job: everything that can be known to be wrong is said before it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.errors import InputError, TargetError, UserError
from autotune.jobs.job import Job, Pair, merged, model_name, names_of_pairs
from autotune.jobs.schema import NAME, JobTable, ModelTable, TargetTable, meant, validated
from autotune.jobs.toml import Document, Fault, Location, read_toml
from autotune.measure.tracker import Device, Tracker
from search_spaces.task import Target


class JobFileError(InputError):
    """A job file has ``faults``; the message names each with its line and key."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        count = "a fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in self.faults)
        super().__init__(f"{path} has {count}, and nothing was done:{lines}")


def read_table(path: str | Path) -> JobTable:
    """What a job file says, without a look at what it names. Raises ``JobFileError``."""
    document = _read(Path(path))
    table = validated(document)
    if table is None or document.faults:
        raise JobFileError(Path(path), document.faults)
    return table


def read_job(path: str | Path) -> Job:
    """A job file, checked: its models, targets and databases too.

    Raises ``JobFileError`` with all faults at once, and ``InputError`` where there is no file.
    """
    path = Path(path)
    document, folder = _read(path), path.parent
    table = validated(document)
    models, tables = _tables(document, table)
    for place, model in models.items():
        with _noted(document, ("models", place, "path")):
            _check_model(folder / model.path)
    _check_names(document, {i: model_name(m) for i, m in models.items()}, "models")
    _check_names(document, {i: t.name for i, t in tables.items()}, "targets")
    targets: dict[str, tuple[Target, Device | None]] = {}
    for place, target in tables.items():
        found = _target(document, place, target, folder)
        if found is not None:
            targets[target.name] = found
    known = [target.name for target in tables.values()]
    for place, model in models.items():
        for name in model.targets or ():
            if name not in known:
                document.fault(
                    ("models", place, "targets"),
                    f"there is no target {name}{meant(name, known)}",
                )
    if table is None:
        raise JobFileError(path, document.faults)
    pairs = tuple(_pairs(document, table, targets, folder))
    _check_database(document, folder / table.db, pairs)
    _check_outputs(document, folder / table.output, pairs)
    if document.faults:
        raise JobFileError(path, document.faults)
    return Job(path, folder / table.db, folder / table.output, pairs)


def _read(path: Path) -> Document:
    try:
        return read_toml(path.read_bytes().decode())
    except OSError as error:
        raise InputError(f"the job file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the job file {path} is no text in UTF-8") from None


def _tables(
    document: Document, table: JobTable | None
) -> tuple[dict[int, ModelTable], dict[int, TargetTable]]:
    """The tables of models and of targets by their places; of a faulty file what is right of it."""
    if table is not None:
        return dict(enumerate(table.models)), dict(enumerate(table.targets))
    models: dict[int, ModelTable] = {}
    targets: dict[int, TargetTable] = {}
    for place, given in enumerate(_list(document, "models")):
        try:
            models[place] = ModelTable.model_validate(given)
        except ValidationError:
            told = given if isinstance(given, dict) else {}
            if isinstance(told.get("path"), str):
                models[place] = ModelTable.model_construct(**_whole(told))
    for place, given in enumerate(_list(document, "targets")):
        try:
            targets[place] = TargetTable.model_validate(given)
        except ValidationError:
            continue
    if "targets" not in document.values:
        targets[0] = TargetTable(name="native")
    return models, targets


def _whole(told: Mapping[str, object]) -> dict[str, Any]:
    """Those keys of a faulty table of a model that are right by themselves."""
    found: dict[str, Any] = {}
    for key in ("path", "name", "targets"):
        try:
            made = ModelTable.model_validate({"path": "", key: told[key]})
        except (ValidationError, KeyError):
            continue
        found[key] = getattr(made, key)
    return found


def _list(document: Document, key: str) -> list[object]:
    found = document.values.get(key)
    return found if isinstance(found, list) else []


def _check_model(path: Path) -> None:
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not there"
        raise InputError(f"{path} is {what}: give the path of a model, from the job file's folder")


def _check_names(document: Document, names: dict[int, str], tables: str) -> None:
    first: dict[str, int] = {}
    for place, name in names.items():
        before = first.setdefault(name, place)
        where = (tables, place, "name")
        if before != place:
            line = document.line((tables, before))
            document.fault(where, f"{name} is the name of the one in line {line}, too: name it")
        elif not re.match(NAME, name):
            document.fault(where, f"{name!r} cannot be the name of a folder: give it another name")


def _target(
    document: Document, place: int, table: TargetTable, folder: Path
) -> tuple[Target, Device | None] | None:
    """The target and its device; None where that is not possible, with the fault noted."""
    from autotune.measure.cluster import check_ray
    from autotune.target import check_measurable, resolve

    where = ("targets", place)
    before = len(document.faults)
    target = None
    with _noted(document, (*where, "target")):
        name = table.target
        target = resolve(str(folder / name) if name.endswith(".json") else name, table.threads)
        if table.key and target.device not in ("", table.key):
            raise TargetError(f"it is the device {target.device!r}, not {table.key!r}")
        target = replace(target, device=table.key or target.device)
    if target is None:
        return None
    if table.ray is None:  # hosts of a cluster answer for themselves
        with _noted(document, (*where, "threads" if table.threads else "target")):
            check_measurable(target)
    else:
        with _noted(document, (*where, "ray")):
            check_ray(table.ray)
            if target.device or table.rpc:
                raise InputError("candidates are measured by ray or by rpc: name one of them")
    device = None
    if table.rpc is not None:
        with _noted(document, (*where, "rpc")):
            Tracker.parse(table.rpc)
        if not target.device:
            document.fault((*where, "key"), "a device over the network needs one: its tracker's")
        if table.cores is not None:
            document.fault((*where, "cores"), "it is about this machine, and rpc about another")
        device = Device(table.rpc, target.device, table.rpc_wait, table.rpc_cc)
    else:
        if target.device:
            key = "key" if table.key else "target"
            document.fault((*where, key), "a device needs rpc: the HOST:PORT of its tracker")
        if table.rpc_cc is not None:
            document.fault((*where, "rpc-cc"), "it needs rpc: the HOST:PORT of a tracker")
        if table.cores is not None and table.cores < target.threads:
            document.fault((*where, "cores"), f"it must be {target.threads} (threads) or more")
    return (target, device) if len(document.faults) == before else None


def _pairs(
    document: Document,
    table: JobTable,
    targets: dict[str, tuple[Target, Device | None]],
    folder: Path,
) -> Iterator[Pair]:
    from autotune.goal import Goal

    for model, asked in names_of_pairs(table):
        if asked.name not in targets:
            continue  # it has a fault of its own
        target, device = targets[asked.name]
        options, name = merged(table, model), model_name(model)
        place = table.models.index(model)

        def key(name: str, model: ModelTable = model, place: int = place) -> Location:
            return ("models", place, name) if name in model.model_fields_set else (name,)

        if device is not None and options.graph:
            document.fault(
                key("graph"), f"whole models are compared on this machine: not for {asked.name}"
            )
        if device is not None and options.accuracy_budget is not None:
            document.fault(
                key("accuracy-budget"),
                f"whole models are compared on this machine: not for {asked.name}",
            )
        if options.accuracy_budget is None:
            for each in ("calibration", "eval", "precisions"):
                if getattr(options, each):
                    document.fault(key(each), "it is about what may be lost: set accuracy-budget")
        calibration = None if options.calibration is None else folder / options.calibration
        if calibration is not None and not calibration.is_file():
            document.fault(key("calibration"), f"{calibration} is no file")
        if device is not None and options.until and Goal.parse(options.until).engine:
            document.fault(
                key("until"),
                f"no engine can be timed on the device {asked.name}: give a time",
            )
        yield Pair(
            model=name,
            path=folder / model.path,
            shapes={tensor: tuple(shape) for tensor, shape in model.input.items()},
            where=asked.name,
            target=target,
            device=device,
            cores=asked.cores,
            ray=asked.ray,
            options=options,
            artifact=folder / table.output / name / asked.name,
            calibration=calibration,
        )


def _check_database(document: Document, path: Path, pairs: tuple[Pair, ...]) -> None:
    from autotune.database import check_database, check_timing

    with _noted(document, ("db",)):
        check_database(path)
        for target, cache in {(pair.target, pair.options.cache) for pair in pairs}:
            check_timing(path, target, cache)
    for target in {pair.target for pair in pairs}:
        if len({pair.options.cache for pair in pairs if pair.target == target}) > 1:
            document.fault(
                ("cache",), "it must be the same for all models: one database holds one kind of it"
            )
            break


def _check_outputs(document: Document, output: Path, pairs: tuple[Pair, ...]) -> None:
    from autotune.artifact.output import check_replaceable

    for pair in pairs:
        with _noted(document, ("output",)):
            for folder in (output, pair.artifact.parent):
                if folder.exists() and not folder.is_dir():
                    raise InputError(f"{folder} is a file: name a folder")
            check_replaceable(pair.artifact)


@contextmanager
def _noted(document: Document, where: Location) -> Iterator[None]:
    """Note a ``UserError`` inside as a fault of the key ``where``."""
    try:
        yield
    except UserError as error:
        document.fault(where, str(error))
