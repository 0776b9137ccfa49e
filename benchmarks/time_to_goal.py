"""How long until a model is faster than another engine: ``python -m benchmarks.time_to_goal``.

The whole of ``autotune tune MODEL --until ENGINE --output DIR`` counts, as a user starts it: from
an empty database, and from one that knows other models (which were searched for a while before).
What came out is then timed beside the engine, in turns, and has to be faster.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES, model
from benchmarks.options import several

AIMS = {"empty": 300.0, "others": 60.0}
"""Seconds, by what the database knows at first."""


def autotune(*arguments: str | Path) -> str:
    """What the command prints; raises ``InputError`` where it fails."""
    command = [sys.executable, "-m", "autotune.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise InputError(f"autotune {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def shaped(name: str, threads: int | None) -> list[str | Path]:
    """A benchmark model, its open dimensions, and the threads, as arguments."""
    path, shapes = model(name)
    inputs = (f"--input={key}={','.join(map(str, shape))}" for key, shape in shapes.items())
    return [path, *inputs, *([] if threads is None else [f"--threads={threads}"])]


def others_known(options: argparse.Namespace) -> Path:
    """A database of the other models, searched once and kept."""
    path: Path = options.work / f"others-of-{options.model}.db"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        for name in NAMES:
            if name != options.model:
                print(f"searching {name} for {options.learn}", file=sys.stderr, flush=True)
                autotune(
                    "tune", *shaped(name, options.threads), "--db", draft, "--time", options.learn
                )
        draft.rename(path)
    return path


def once(options: argparse.Namespace, known: Path | None) -> dict[str, Any]:
    """Tune from ``known`` until the goal is reached, and time what came out."""
    from autotune.bench import bench

    folder = options.work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if known is not None:
        shutil.copy(known, folder / "tuning.db")
    places = ("--db", folder / "tuning.db", "--output", folder / "artifact")
    ends = ("--until", options.until, "--time", options.limit)
    begun = time.perf_counter()
    autotune("tune", *shaped(options.model, options.threads), *places, *ends)
    seconds = time.perf_counter() - begun
    engine = options.until.partition(":")[0]
    result = bench(folder / "artifact", [engine], model(options.model)[0])
    ratio = result.engines[1].ratio
    assert ratio is not None
    return {"seconds": seconds, "times_as_fast": [ratio.value, ratio.low, ratio.high]}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.time_to_goal", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", default="resnet50", help=f"of {', '.join(NAMES)} (default: %(default)s)")
    add("--until", default="onnxruntime", help="as of `autotune tune` (default: %(default)s)")
    add("--from", dest="known", default="empty,others", help="databases (default: %(default)s)")
    add("--learn", default="60s", help="search of each other model (default: %(default)s)")
    add("--limit", default="10m", help="of a search (default: %(default)s)")
    add("--rounds", type=int, default=3, help="of each database (default: %(default)s)")
    add("--work", type=Path, default=Path("build/time_to_goal"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/time_to_goal.json"), help="(%(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    options = parser.parse_args(arguments)
    options.known = several(options.known, AIMS, "database")
    if options.model not in NAMES:
        raise InputError(f"no model {options.model}: there are {', '.join(NAMES)}")
    if options.rounds < 1:
        raise InputError("--rounds must be 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        options.work.mkdir(parents=True, exist_ok=True)
        known = {
            name: others_known(options) if name == "others" else None for name in options.known
        }
        content: dict[str, Any] = {"benchmark": "time_to_goal", **describe(options.threads)}
        content |= {"settings": settings_of(options), "aims": AIMS, "databases": {}}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
        with Others() as others:
            for _ in range(options.rounds):
                for name, path in known.items():
                    runs[name].append(once(options, path))
                    print(f"{name}: {json.dumps(runs[name][-1])}", file=sys.stderr, flush=True)
    except UserError as error:
        print(f"benchmarks.time_to_goal: {error}", file=sys.stderr)
        return 2
    claims = {}
    for name, each in runs.items():
        seconds = statistics.median(one["seconds"] for one in each)
        worst = max(one["seconds"] for one in each)
        times = [one["times_as_fast"][0] for one in each]
        content["databases"][name] = {"runs": each, "seconds": seconds}
        claims[f"{name}: within {AIMS[name]:g} s"] = seconds <= AIMS[name]
        claims[f"{name}: faster in the end"] = min(times) > 1
        print(
            f"{options.model} as fast as {options.until} from a database that is/knows {name}: "
            f"{seconds:.0f} s (at most {worst:.0f}), then {min(times):.2f} to {max(times):.2f} "
            "times as fast"
        )
    write_json(options.json, {**content, "busy_cores_of_others": others.cores, "claims": claims})
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
