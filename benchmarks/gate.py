"""Does ``autotune check`` see a slower build, and else keep quiet? ``python -m benchmarks.gate``

The model is a chain of equal convolutions, each with its activation. The baseline is written of a
chain of twenty. "unchanged" checks a second build of the same chain, which has the same bytes:
whatever is found worse is a false alarm. "slower" checks a chain of twenty-one, in which one
convolution changes no value: the same outputs by 5 % more work, and 5 % more weights. Its limits of
memory and size are wide, since what is asked is whether its time is found. Both are checked in
turns, so that both see the same moods of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of

LAYERS = 20
CHANNELS, SIDE = 64, 14
FALSE_ALARMS, POWER = 0.05, 0.9
"""The shares of checks that are wrongly worse at most, and rightly worse at least."""

KINDS = ("unchanged", "slower")


def chain(path: Path, extra: int) -> Path:
    """Write the chain as an ONNX file; ``extra`` convolutions in its middle change nothing."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    scale = (2 / (9 * CHANNELS)) ** 0.5
    weights = [
        (random.standard_normal((CHANNELS, CHANNELS, 3, 3)) * scale).astype("float32")
        for _ in range(LAYERS)
    ]
    same = np.zeros((CHANNELS, CHANNELS, 3, 3), "float32")
    same[range(CHANNELS), range(CHANNELS), 1, 1] = 1.0
    weights[LAYERS // 2 : LAYERS // 2] = [same] * extra
    nodes, last = [], "x"
    for place in range(len(weights)):
        made = "y" if place == len(weights) - 1 else f"r{place}"
        nodes.append(helper.make_node("Conv", [last, f"w{place}"], [f"c{place}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{place}"], [made]))
        last = made
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, f"w{i}") for i, value in enumerate(weights)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def built(work: Path, threads: int | None) -> dict[str, Path]:
    """The artifact of the baseline, and by kind those that are checked, with default schedules."""
    import autotune

    folders = {}
    for name, extra in (("good", 0), ("unchanged", 0), ("slower", 1)):
        folders[name] = work / name
        path = chain(work / f"{'longer' if extra else 'chain'}.onnx", extra)
        autotune.compile(path, output=folders[name], threads=threads)
    return folders


def measured(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Check each kind so many times; ``content`` is written after every round."""
    from autotune.bench.check import check, update
    from autotune.bench.regression import Thresholds

    folders = built(options.work, options.threads)
    baseline = options.work / "baseline.json"
    update(folders["good"], baseline, options.seconds)
    limits = {"unchanged": Thresholds(), "slower": Thresholds(memory=1.0, size=1.0)}
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for turn in range(options.runs):
        for kind in KINDS:
            begun = time.perf_counter()
            with Others() as others:
                found = check(folders[kind], baseline, None, limits[kind], options.seconds)
            row = asdict(found) | {"worse": list(found.worse), "others": others.cores}
            runs[kind].append(row | {"seconds": time.perf_counter() - begun})
            p50 = found.findings[0]
            print(
                f"{turn + 1:3} {kind:10} p50 {p50.change:+.1%} (chance {p50.probability:.2g}) "
                f"worse: {', '.join(found.worse) or 'nothing'}",
                flush=True,
            )
        content["kinds"] = {kind: told(rows) for kind, rows in runs.items()}
        write_json(options.json, content)


def told(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is said of the checks of one kind; shares have their 95 % interval."""
    figures = [one["figure"] for one in rows[0]["findings"]]
    changes = [row["findings"][0]["change"] for row in rows]
    return {
        "runs": len(rows),
        "any": share([bool(row["worse"]) for row in rows]),
        "worse": {name: share([name in row["worse"] for row in rows]) for name in figures},
        "p50_change": {
            "median": statistics.median(changes),
            "least": min(changes),
            "most": max(changes),
        },
        "seconds_of_a_check": statistics.median(row["seconds"] for row in rows),
        "checks": list(rows),
    }


def share(found: Sequence[bool]) -> dict[str, float]:
    """How often it was so, and the exact 95 % interval of that share."""
    from scipy.stats import binomtest

    interval = binomtest(sum(found), len(found)).proportion_ci(method="exact")
    low, high = float(interval.low), float(interval.high)
    return {"share": sum(found) / len(found), "low": low, "high": high}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.gate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--runs", type=int, default=50, help="checks of each kind (default: %(default)s)")
    add("--seconds", type=float, default=30.0, help="of timing a check (default: %(default)s)")
    add("--work", type=Path, default=Path("build/gate"), help="folder (%(default)s)")
    add("--json", type=Path, default=Path("build/gate.json"), help="(%(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    options = parser.parse_args(arguments)
    if options.runs < 1 or not options.seconds > 0:
        raise InputError("--runs must be 1 or more, and --seconds more than nothing")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        options.work.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"benchmark": "gate", **describe(options.threads)}
        content |= {"settings": settings_of(options)}
        with Others() as others:
            measured(options, content)
    except UserError as error:
        print(f"benchmarks.gate: {error}", file=sys.stderr)
        return 2
    alarms = content["kinds"]["unchanged"]["any"]
    power = content["kinds"]["slower"]["worse"]["p50"]
    content["claims"] = {
        f"an unchanged artifact is worse in {FALSE_ALARMS:.0%} of checks at most": (
            alarms["share"] <= FALSE_ALARMS
        ),
        f"5 % more work is found in {POWER:.0%} of checks at least": power["share"] >= POWER,
    }
    for text, one in (("false alarms", alarms), ("slower found", power)):
        print(f"{text}: {one['share']:.1%} ({one['low']:.1%} to {one['high']:.1%})")
    write_json(options.json, {**content, "busy_cores_of_others": others.cores})
    return 0 if all(content["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
