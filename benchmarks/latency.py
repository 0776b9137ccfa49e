"""Default, tuned, and other engines, on the six models: ``python -m benchmarks.latency``.

For each model: compile without any search, tune into a shared database, compile the winners, then
time both builds and the peers in turn, in one fresh process, with the same inputs and threads.
Run again, it goes on where it ended: the time or the trials that the database already holds count.

What is fair to engines whose idle threads spin: each keeps its default (spinning makes its own
calls faster, and is what its users get) but is timed in a turn of its own, which begins only when
the threads of the engine before it rest (``autotune.bench.interleaved.settle``). Cores that other
processes kept busy meanwhile are reported: on a busy machine only the fastest calls mean much, and
a thread that spins for a core it does not get makes an engine look slower than it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.cli.parsing import duration
from autotune.errors import InputError, ModelError, UserError
from benchmarks.latency_table import fill_readme, print_table
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES, Shapes, model
from benchmarks.options import several

if TYPE_CHECKING:
    from autotune.cli.progress import Reporter
    from autotune.steps import CompileResult

README = Path(__file__).resolve().parents[1] / "README.md"
LEAST_SEARCH = 1.0
"""Seconds: less than this left of a model's time is nothing left."""


def measure(name: str, options: argparse.Namespace, told: Reporter) -> dict[str, Any]:
    """Everything about one model, as JSON. Raises ``UserError``; ``KeyboardInterrupt`` too."""
    import autotune

    path, shapes = model(name)
    work: Path = options.work / name
    work.mkdir(parents=True, exist_ok=True)
    builds: dict[str, dict[str, Any]] = {}
    begun = time.perf_counter()
    compiled = autotune.compile(
        path, shapes, output=work / "default", threads=options.threads, status=told.status
    )
    builds["default"] = _build(compiled, time.perf_counter() - begun)
    keys = compiled.manifest.model["digest"], compiled.manifest.target.digest
    if options.tune:
        _search(keys, path, shapes, options, told)
        begun = time.perf_counter()
        compiled = autotune.compile(
            path,
            shapes,
            database=options.db,
            output=work / "tuned",
            threads=options.threads,
            status=told.status,
        )
        builds["tuned"] = _build(compiled, time.perf_counter() - begun)
    told.status(f"{name}: timing")
    # Another process: nothing that compiling left in memory, or in threads, has a part in it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        timed = pool.submit(
            compare, work, list(builds), options.peers, path, options.bench, options.rounds
        ).result()
    found = {"status": "measured", "digest": keys[0], "shapes": shapes, "builds": builds, **timed}
    if options.tune:
        found["search"] = spent(options.db, *keys)
    return found


def _build(compiled: CompileResult, seconds: float) -> dict[str, Any]:
    assert compiled.check is not None  # what is timed here runs here
    return {
        "tasks": compiled.summary,
        "seconds": seconds,
        "error": compiled.check.error,
        "reference": compiled.check.engine,
        "notes": list(compiled.manifest.notes),
    }


def _search(
    keys: tuple[str, str], path: Path, shapes: Shapes, options: argparse.Namespace, told: Reporter
) -> None:
    import autotune

    seconds = options.time
    if options.trials is None:
        seconds -= spent(options.db, *keys)["seconds"]
        if seconds < LEAST_SEARCH:
            told.status("the database holds as much search already")
            return
    result = autotune.tune(
        path,
        shapes,
        trials=options.trials,
        seconds=None if options.trials is not None else seconds,
        database=options.db,
        threads=options.threads,
        progress=told.progress,
        status=told.status,
    )
    told.status(result.search.message)
    if result.search.stopped == "interrupted":
        raise KeyboardInterrupt


def spent(database: Path, digest: str, target: str) -> dict[str, Any]:
    """Runs, seconds of search and candidates measured that ``database`` holds for a model.

    ``digest`` is the model's, ``target`` the digest of the target. A run that was killed counts up
    to its last record.
    """
    if not database.exists():
        return {"runs": 0, "seconds": 0.0, "trials": 0}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        runs, days, trials = connection.execute(
            """SELECT count(*), sum(julianday(coalesce(
                          finished, (SELECT max(time) FROM records WHERE run = runs.id), started))
                        - julianday(started)),
                      sum((SELECT count(*) FROM records WHERE run = runs.id AND round = 0))
               FROM runs WHERE model = ? AND target = ?""",
            (digest, target),
        ).fetchone()
    return {"runs": runs, "seconds": (days or 0.0) * 86400, "trials": trials or 0}


def compare(
    work: Path, builds: Sequence[str], peers: Sequence[str], path: Path, seconds: float, rounds: int
) -> dict[str, Any]:
    """Time the artifacts ``builds`` in ``work`` and the peers that can run the model, in turn.

    The last of ``builds`` is the one that ratios and differences are given against.
    """
    from autotune.bench import bench

    ours, rest = builds[-1], [str(work / other) for other in builds[:-1]]
    usable, missing = _usable(peers, work / ours, path)
    with Others() as others:
        result = bench(work / ours, [*rest, *usable], path, seconds=seconds, rounds=rounds)
    engines = {}
    for engine in result.engines:
        name = ours if engine.name == "autotune" else Path(engine.name).name
        engines[name] = asdict(engine) | {"name": name}
    return {
        "threads": result.threads,
        "engines": engines,
        "against": ours,
        "missing_peers": missing,
        "busy_cores_of_others": others.cores,
    }


def _usable(peers: Sequence[str], artifact: Path, path: Path) -> tuple[list[str], dict[str, str]]:
    """The peers that are installed and take the model, and why the others are not timed."""
    from autotune.bench.peers import peer_named
    from autotune.frontends.base import TensorSpec
    from autotune.frontends.sampling import random_inputs
    from autotune.runtime import read_manifest

    entries = read_manifest(artifact)["inputs"]
    specs = tuple(TensorSpec(e["name"], tuple(e["shape"]), e["dtype"]) for e in entries)
    usable, missing = [], {}
    for name in peers:
        try:
            peer_named(name).engine(path, random_inputs(specs, 0), 1)
        except (ModelError, UserError) as error:
            missing[name] = str(error)
        else:
            usable.append(name)
    return usable, missing


def claims(found: dict[str, Any]) -> dict[str, bool]:
    """What is promised, and whether this run shows it (only what it can tell)."""
    engines, held = found["engines"], {}
    if "onnxruntime" in engines:
        default, theirs = engines["default"]["latency"], engines["onnxruntime"]["latency"]
        # By the fastest calls: what other processes do to spinning threads is no merit of ours.
        held["default_within_3x_of_onnxruntime"] = default["best"] <= 3 * theirs["best"]
        held["agrees_with_onnxruntime"] = engines["onnxruntime"]["difference"]["relative"] < 1e-3
    if "tuned" in engines:
        held["tuned_not_slower_than_default"] = engines["default"]["ratio"]["high"] >= 1.0
    return held


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path``, so that a run that is killed leaves the file of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--models", default=",".join(NAMES), help="by commas (default: %(default)s)")
    add("--time", default="60s", help="search for each model, in all (default: %(default)s)")
    add("--trials", type=int, help="candidates for each model, in all, instead of --time")
    add("--no-tune", dest="tune", action="store_false", help="default builds only")
    add("--work", type=Path, default=Path("build/latency"), help="artifacts (%(default)s)")
    add("--db", type=Path, help="the tuning database (default: tuning.db in --work)")
    add("--json", type=Path, help="what was measured (default: latency.json in --work)")
    add("--peers", default="onnxruntime,openvino", help="by commas (default: %(default)s)")
    add("--bench", default="20s", help="time for the comparison of a model (%(default)s)")
    add("--rounds", type=int, default=20, help="turns of each engine (default: %(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    add("--readme", action="store_true", help="only: put the figures of --json into README.md")
    options = parser.parse_args(arguments)
    options.models = several(options.models, NAMES, "benchmark model")
    options.peers = [name for name in options.peers.split(",") if name]
    from autotune.bench.peers import peer_named

    for name in options.peers:
        peer_named(name)
    if options.rounds < 1 or (options.trials is not None and options.trials < 1):
        raise InputError("--rounds and --trials must be 1 or more")
    options.time, options.bench = duration(options.time), duration(options.bench)
    options.db = options.db or options.work / "tuning.db"
    options.json = options.json or options.work / "latency.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a model failed or a promise was not kept, 2 wrong use, 130 interrupted."""
    from autotune.cli.progress import reporter

    try:
        options = parse(arguments)
        if options.readme:
            fill_readme(README, options.json)
            return 0
    except UserError as error:
        print(f"benchmarks.latency: {error}", file=sys.stderr)
        return 2
    settings = settings_of(options, "work", "db", "json", "readme")
    content = {"benchmark": "latency", **describe(options.threads), "settings": settings}
    content["models"] = models = {}
    with reporter() as told:
        for name in options.models:
            told.status(f"{name}: compiling the default build")
            try:
                models[name] = measure(name, options, told)
                models[name]["claims"] = claims(models[name])
            except (FileNotFoundError, ModuleNotFoundError) as error:
                models[name] = {"status": "skipped", "reason": str(error)}
            except UserError as error:
                models[name] = {"status": "failed", "reason": str(error)}
            except KeyboardInterrupt:
                told.status("interrupted: what was measured is kept, and running again continues")
                return 130
            write_json(options.json, content)
    print_table(content)
    kept = all(all(found.get("claims", {}).values()) for found in models.values())
    return 0 if kept and all(found["status"] != "failed" for found in models.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
