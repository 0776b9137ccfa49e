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
from benchmarks.machine import describe
from benchmarks.models import NAMES, model
from benchmarks.options import several

AIM = 0.05
"""Of the wall time: how far the parts may be from it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exits with 1 where a profile does not add up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="squeezenet,resnet50,det")
    parser.add_argument("--seconds", default=10.0, type=float, help="of each model")
    parser.add_argument("--output", default=Path("build/profile.json"), type=Path)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        print(f"benchmarks.profile: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    import autotune
    from autotune.profile import profile

    if options.seconds <= 0:
        raise InputError("--seconds must be more than 0")
    found = {}
    for name in several(options.models, NAMES, "benchmark model"):
        path, shapes = model(name)
        artifact = options.output.parent / "profile" / name
        artifact.parent.mkdir(parents=True, exist_ok=True)
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
    write_json(options.output, {"machine": describe(), "aim": AIM, "models": found})
    return int(any(abs(entry["rest"]) > AIM for entry in found.values()))


if __name__ == "__main__":
    sys.exit(main())
