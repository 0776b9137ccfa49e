"""Gather the facts of an artifact and write them as one page."""

from __future__ import annotations

import datetime
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.counts import counted
from autotune.durations import milliseconds
from autotune.report.base import KIND, Facts

if TYPE_CHECKING:
    from markupsafe import Markup

    from autotune.bench import BenchResult
    from autotune.report.history import History

DEFAULT = "default schedules"

_log = logging.getLogger(__name__)
_ORDER = ("summary", "roofline", "kernels", "tuning", "choices", "failures", "environment")


@dataclass(frozen=True)
class _Shown:
    name: str
    title: str
    html: Markup | str


def report(
    artifact: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    database: str | Path | None = None,
    against: Sequence[str] = ("onnxruntime",),
    threads: int | None = None,
    seconds: float = 30.0,
    status: Callable[[str], None] | None = None,
) -> Facts:
    """Measure the artifact directory ``artifact`` and write the HTML file ``output``.

    With ``model``, what it was compiled from, it is timed in turns with the engines ``against`` and
    with the model with default schedules, which is profiled, too; with ``database`` its tuning is
    shown. ``seconds`` is about how long all measuring takes. Raises a ``UserError``.
    """
    from autotune.files import check_place, replacing

    check_place(Path(output))
    facts = gather(artifact, model, database, against, threads, seconds, status)
    text = page(facts)
    with replacing(Path(output)) as file:
        file.write(text.encode())
    return facts


def gather(
    artifact: str | Path,
    model: str | Path | None,
    database: str | Path | None,
    against: Sequence[str],
    threads: int | None,
    seconds: float,
    status: Callable[[str], None] | None,
) -> Facts:
    """The facts that the sections show; parameters as for ``report``."""
    from autotune.bench import bench
    from autotune.bench.fresh import measuring
    from autotune.profile import profile
    from autotune.runtime import read_manifest

    tell = status or (lambda line: None)
    artifact = Path(artifact)
    manifest = read_manifest(artifact)
    known = None if database is None else _history(Path(database), manifest)
    part = seconds / (3 if model is not None else 1)
    compared, before = None, None
    with tempfile.TemporaryDirectory(prefix="autotune-report-") as folder:
        default = Path(folder) / "default"
        if model is not None:
            tell("compiling with default schedules")
            _compile_default(Path(model), manifest, default)
            tell(f"timing {artifact} against {', '.join(against)} and default schedules")
            others = [*against, str(default)]
            compared = bench(artifact, others, model, threads, seconds=part, detailed=True)
            compared = _named(compared, str(default))
        tell(f"profiling {artifact}")
        profiled = profile(artifact, threads, seconds=part)
        if model is not None:
            tell("profiling default schedules")
            before = profile(default, profiled.threads, seconds=part)
    known_details = None if compared is None else compared.engines[0].details
    if known_details is not None:
        memory: float = known_details.peak_memory  # as the table says, taken the same way for all
    else:
        with measuring(profiled.threads) as process:
            memory = process.peak(artifact)
    return Facts(
        artifact=artifact,
        manifest=manifest,
        profile=profiled,
        memory=memory,
        size=sum(file.stat().st_size for file in artifact.iterdir()),
        bench=compared,
        before=before,
        history=known,
        model=None if model is None else Path(model),
        database=None if database is None else Path(database),
    )


def page(facts: Facts) -> str:
    """The whole page, by every section that is installed and has something to show."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import escape

    from search_spaces.plugins import usable

    sections = sorted(usable(KIND), key=lambda section: _place(section.name))
    shown = []
    for section in sections:
        try:
            html = section.html(facts)
        except Exception as error:  # a section may be a plugin, which must not cost the report
            _log.warning("the report section %s fails and is left out: %r", section.name, error)
            continue
        if html:
            shown.append(_Shown(section.name, section.title, escape(html)))
    environment = Environment(loader=PackageLoader("autotune.report", ""), autoescape=True)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    tuned = sum(task["source"] == "record" for task in facts.manifest["tasks"])
    return environment.get_template("page.html.j2").render(
        title=f"{facts.manifest['model']['name']}: {milliseconds(facts.profile.wall)} ms",
        lead=f"{facts.profile.cpu}, {counted(facts.profile.threads, 'thread')}, {tuned} of "
        f"{len(facts.manifest['tasks'])} tasks tuned; measured {made}.",
        sections=shown,
    )


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _history(path: Path, manifest: Mapping[str, Any]) -> History:
    from autotune.database import open_database
    from autotune.report.history import history
    from autotune.target import from_fields

    target = from_fields(manifest["target"], "the target of the artifact")
    with open_database(path, create=False, read_only=True) as database:
        return history(database, manifest["model"]["digest"], target.digest)


def _compile_default(model: Path, manifest: Mapping[str, Any], output: Path) -> None:
    from autotune.compilation import compile
    from autotune.target import from_fields

    shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest["inputs"]}
    target = from_fields(manifest["target"], "the target of the artifact")
    compile(model, shapes, target, output=output)


def _named(result: BenchResult, default: str) -> BenchResult:
    """``result`` with the artifact ``default`` called what it is."""
    engines = (
        replace(engine, name=DEFAULT, version="") if engine.name == default else engine
        for engine in result.engines
    )
    return replace(result, engines=tuple(engines))
