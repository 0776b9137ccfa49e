"""Sums of short numbers beside the measured peak: ``python -m benchmarks.short_kernels``.

Every sum of products of each model is computed in bfloat16, and in int8, where the processor has
instructions for them: dot products of vectors (AVX-512 BF16, VNNI) or products of tiles (AMX). Each
kernel, with its data in the caches, is held against the peak of the same instruction, measured in
the same minutes. Operations are those of the original: what is filled up to whole tiles or vectors
is time without any. Schedules are defaults.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.builds import checked, each_model, parser
from benchmarks.latency import write_json
from benchmarks.models import NAMES, model

SPACES = {"cpu.tiles": "tiles", "cpu.bfloat16": "vectors", "cpu.integer": "vectors"}
"""The spaces of such kernels, and what their instructions multiply."""

DTYPES = ("bfloat16", "int8")


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The kernels of one model, by precision. Raises what importing and compiling raise."""
    from autotune.frontends import import_model
    from autotune.frontends.sampling import sample_inputs
    from autotune.graph.choices import choose
    from autotune.graph.pipeline import fused, lay_out, simplified
    from autotune.graph.probe import Probe
    from autotune.profile.peaks import product_peaks
    from autotune.steps import resolved_target
    from autotune.threads import set_threads
    from search_spaces.graph.precision import PrecisionSpace
    from search_spaces.precisions import kinds_of

    target = resolved_target("native", options.threads)
    set_threads(target.threads)
    imported = import_model(*model(name))
    kinds = [kind for kind in kinds_of(target) if kind in DTYPES]
    rows: list[dict[str, Any]] = []
    if kinds:
        probe = Probe(imported, target, kinds)
        probe.watch([sample_inputs(imported, 0)])
    for kind in kinds:
        peak = product_peaks(target)[kind]
        module = simplified(imported, target)
        mix = PrecisionSpace({place: probe.value(place, kind) for place in probe.places})
        made = fused(imported, target, *choose(module, target, None, lay_out, mix))
        rows += _rows(made.tasks, target, kind, peak, options)
    return {"kernels": rows, "missing": [k for k in DTYPES if k not in kinds]}


def _rows(
    tasks: Sequence[Any], target: Any, kind: str, peak: float, options: argparse.Namespace
) -> list[dict[str, Any]]:
    from benchmarks.kernel_engines import Ours
    from search_spaces.registry import default_candidate

    found = []
    for task in tasks:
        candidate = default_candidate(task, target)
        if candidate.space not in SPACES:
            continue
        kernel = Ours([task], target, {})
        for _ in range(options.rounds):
            kernel.turn(options.seconds / options.rounds)
        seconds = min(min(turn) for turn in kernel.rounds()) / task.calls
        flops = _asked_for(task)
        found.append(
            {
                "precision": kind,
                "kernel": task.workload.name,
                "shape": [str(argument) for argument in task.workload.arguments[:2]],
                "calls": task.calls,
                "by": SPACES[candidate.space],
                "parameters": dict(candidate.parameters),
                "flops": flops,
                "filled": task.flops / flops,
                "us": seconds * 1e6,
                "gflops": flops / seconds / 1e9,
                "peak_gflops": peak / 1e9,
                "share": flops / seconds / peak,
            }
        )
    return sorted(found, key=lambda row: -row["calls"] * row["us"])


def _asked_for(task: Any) -> float:
    """The operations of the sums before columns and steps were filled up with zeros."""
    from search_spaces.cpu.structure import tiled

    nest = tiled(task.workload)
    last = nest.block.axes[nest.reduced[-1]].extent
    (buffer,) = (r.buffer for at, r in enumerate(nest.block.reads) if at != nest.packed)
    while buffer < 0:  # a copy with a border, or with more channels
        (made,) = (b for b in task.workload.blocks if b.writes[0].buffer == buffer)
        buffer = made.reads[0].buffer
    given = task.workload.arguments[buffer].shape[-1]
    rows = nest.extent(nest.outer) * nest.rows
    steps = nest.depth // last * min(last, given)
    return 2.0 * rows * nest.kept * steps


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    made = parser("short_kernels", __doc__, "a kernel", 0.5)
    made.set_defaults(rounds=5)
    return checked(made.parse_args(arguments), NAMES)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 2 wrong use."""
    done = each_model("short_kernels", lambda: parse(arguments), measured, _show)
    if done is None:
        return 2
    options, content = done
    write_json(options.json, content)
    return 0


def _show(name: str, found: Mapping[str, Any]) -> None:
    for kind in found["missing"]:
        print(f"{name:10} {kind}: this processor has no instructions for it")
    for kind in DTYPES:
        rows = [row for row in found["kernels"] if row["precision"] == kind]
        if not rows:
            continue
        total = sum(row["calls"] * row["us"] for row in rows)
        ideal = sum(row["calls"] * row["flops"] / row["peak_gflops"] / 1e3 for row in rows)
        print(
            f"{name:10} {kind}: {ideal / total:.0%} of the peak, all {len(rows)} kernels together"
        )
        for row in rows:
            print(
                f"  {row['calls']:3} x {row['us']:9.1f} us {row['gflops']:8.1f} of "
                f"{row['peak_gflops']:.0f} GFLOP/s ({row['share']:.0%}) by {row['by']}, "
                f"filled {row['filled']:.2f}: {row['shape'][0]} by {row['shape'][1]}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
