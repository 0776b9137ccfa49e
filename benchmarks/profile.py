"""Whether a profile adds up: ``python -m benchmarks.profile``.

The kernels of a model, timed one by one while it runs, and what the runtime does between them are
compared with the time of inferences that nobody observes. Writes JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES, model
from benchmarks.options import several

AIM = 0.05
"""Of the wall time: how far the parts may be from it."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--models", default="cls,squeezenet,resnet50,det", help="by commas (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="of profiling a model (default: %(default)s)")
    add("--work", type=Path, default=Path("build/profile"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/profile.json"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    options.models = several(options.models, NAMES, "benchmark model")
    if options.seconds <= 0:
        raise InputError("--seconds must be more than 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a profile does not add up, 2 wrong use."""
    try:
        options = parse(arguments)
        with Others() as others:
            found = measured(options)
    except UserError as error:
        print(f"benchmarks.profile: {error}", file=sys.stderr)
        return 2
    content = {"benchmark": "profile", **describe(), "settings": settings_of(options)}
    content |= {"aim": AIM, "busy_cores_of_others": others.cores, "models": found}
    write_json(options.json, content)
    return int(any(abs(entry["rest"]) > AIM for entry in found.values()))


def measured(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By model, its times and what the kernels leave of them, with default schedules."""
    import autotune
    from autotune.profile import profile

    options.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in options.models:
        path, shapes = model(name)
        artifact = options.work / name
        autotune.compile(path, shapes, output=artifact)
        taken = profile(artifact, seconds=options.seconds)
        off = taken.rest / taken.wall
        found[name] = {
            "wall": taken.wall,
            "spread": (taken.high - taken.low) / taken.wall,
            "kernels": taken.kernels,
            "runtime": taken.runtime,
            "rest": off,
            "cost": taken.cost,
        }
        print(
            f"{name}: {taken.wall * 1e3:.3f} ms, kernels {taken.kernels / taken.wall:.1%}, "
            f"runtime {taken.runtime / taken.wall:.1%}, rest {off:+.1%}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
