"""`autotune profile`: where the time of an artifact goes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli import parsing
from autotune.cli.console import print_json, say, table
from autotune.cli.options import ArtifactArgument, JsonOption, ThreadsOption
from autotune.counts import counted
from autotune.durations import milliseconds

if TYPE_CHECKING:
    from autotune.profile import Profile


def profile(
    artifact: ArtifactArgument,
    threads: ThreadsOption = None,
    seconds: Annotated[str, typer.Option("--time", help="About how long to measure.")] = "10s",
    top: Annotated[int, typer.Option(help="How many kernels to list; 0 lists all.", min=0)] = 20,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one inference for Perfetto (Chrome's format)."),
    ] = None,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Measure again what this machine can do at best.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the time of DIR by kernel, and how far each is from what this machine can do."""
    from autotune.files import check_place, replacing
    from autotune.profile import profile as run
    from autotune.profile.trace import chrome_trace

    length = parsing.measuring(seconds)
    if trace is not None:
        check_place(trace)
    say(f"profiling {artifact}")
    found = run(artifact, threads, seconds=length, remeasure=remeasure)
    if trace is not None:
        with replacing(trace) as file:
            file.write(json.dumps(chrome_trace(found)).encode())
    if as_json:
        print_json(_fields(found))
    else:
        show(found, top)
        if trace is not None:
            say(f"{trace}: open it at https://ui.perfetto.dev")


def _fields(found: Profile) -> dict[str, Any]:
    fields = asdict(found)
    # Of each call: the entries have them as well.
    del fields["timeline"], fields["operators"]
    for entry, fielded in zip(found.entries, fields["entries"], strict=True):
        fielded["intensity"] = entry.intensity
    return fields


def show(found: Profile, top: int = 20) -> None:
    """Print the tables of a profile."""
    roof = found.roof
    (small, fast), (large, slow) = roof.bandwidth[0], roof.bandwidth[-1]
    others = [f"{peak / 1e9:.0f} of {dtype}" for dtype, peak in roof.peaks.items()]
    started = f", {roof.start * 1e6:.1f} us to start {found.threads} threads"
    print(
        f"This machine at best: GFLOP/s {', '.join(others)}; {fast / 1e9:.0f} GB/s in "
        f"{small >> 10} KiB, {slow / 1e9:.0f} GB/s in {large >> 20} MiB"
        + (started if found.threads > 1 else "")
    )
    listed = found.entries[: top or None]
    rows = []
    for number, entry in enumerate(listed, 1):
        rows.append(
            (
                str(number),
                entry.label,
                str(entry.calls),
                milliseconds(entry.seconds),
                f"{entry.spread:.0%}",
                f"{entry.share:.1%}",
                f"{entry.flop_rate / 1e9:.1f}",
                f"{entry.byte_rate / 1e9:.1f}",
                f"{entry.intensity:.1f}",
                "" if entry.roof is None else f"{entry.roof:.0%}",
                entry.verdict,
            )
        )
    hidden = found.entries[len(listed) :]
    if hidden:
        rest = sum(entry.seconds for entry in hidden)
        calls = str(sum(entry.calls for entry in hidden))
        share = f"{rest / found.wall:.1%}"
        blank = ("",) * 5
        rows.append(("", f"{len(hidden)} more", calls, milliseconds(rest), "", share, *blank))
    table(
        f"{found.model}, {counted(found.threads, 'thread')}, {found.cpu}",
        ("", "kernel", "calls", "ms", "+-", "share", "GFLOP/s", "GB/s", "FLOP/B", "roof",
         "bound by"),
        rows,
        texts=("kernel", "bound by"),
    )  # fmt: skip
    # A table of their own: beside the figures they would leave no room for the names.
    words = ("schedule", "operators of the model, of the first call")
    table(
        "How they are computed, and what for",
        ("", *words),
        [
            (str(number), f"{entry.schedule or '-'} ({entry.origin})", entry.source or "unknown")
            for number, entry in enumerate(listed, 1)
        ],
        texts=words,
    )
    parts = {"kernels": found.kernels, "runtime": found.runtime, "rest": found.rest}
    told = (f"{name} {milliseconds(s)} ({s / found.wall:.1%})" for name, s in parts.items())
    print(
        f"One inference: {milliseconds(found.wall)} ms ({milliseconds(found.low)} to "
        f"{milliseconds(found.high)}) = {' + '.join(told)}"
    )
    print(f"Observing took {found.cost * 1e9:.0f} ns a call, which is taken off.")
    if found.busy:
        say("the machine was busy with other things: profile again when it is quiet")
