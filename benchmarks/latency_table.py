"""The figures of ``benchmarks.latency`` for people: on the terminal, and in the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.errors import InputError

BEGIN, END = "<!-- latency:begin -->", "<!-- latency:end -->"
BUSY = 0.1
"""Cores: more than that kept busy by others is said beside the figures."""

COLUMNS = (
    *("model", "engine", "p50 ms", "p95 ms", "p99 ms", "fastest ms", "time / {ours} (95 %)"),
    "difference",
)


def rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each engine of each model, in the order in which they were measured."""
    made: list[tuple[str, ...]] = []
    for name, found in content["models"].items():
        if found["status"] != "measured":
            made.append((name, f"{found['status']}: {found['reason']}", *[""] * 6))
            continue
        for engine in found["engines"].values():
            taken, ratio, apart = engine["latency"], engine["ratio"], engine["difference"]
            versions = "" if engine["name"] in found["builds"] else f" {engine['version']}"
            made.append(
                (
                    name,
                    engine["name"] + versions,
                    *(f"{taken[key] * 1e3:.4g}" for key in ("p50", "p95", "p99", "best")),
                    _ratio(ratio),
                    f"{apart['relative']:.1g}" if apart else "",
                )
            )
    return made


def _ratio(ratio: dict[str, Any] | None) -> str:
    if not ratio:
        return ""
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _work(name: str, found: dict[str, Any]) -> str:
    """What it took to make the builds of one model."""
    builds, done = found["builds"], found.get("search")
    last = builds["tuned" if done else "default"]
    made = f"{name}: built in {last['seconds']:.0f} s, {last['tasks']}"
    if not done:
        return f"{made}."
    return f"{made}, by {done['trials']} trials in {done['seconds'] / 60:.1f} min of search."


def _columns(content: dict[str, Any]) -> list[str]:
    ours = "tuned" if content["settings"]["tune"] else "default"
    return [column.format(ours=ours) for column in COLUMNS]


def remarks(content: dict[str, Any]) -> list[str]:
    """What must be known to read the figures: the machine, its load, what was left out."""
    target, versions = content["target"], content["versions"]
    has = [f for f in ("avx2", "avx512f", "amx-tile", "neon") if f"+{f}" in target["features"]]
    made = [
        f"{target['model']} ({', '.join(has) or 'no vectors'}), {target['threads']} threads, "
        f"float32, TVM {versions.get('apache-tvm', '?')}, {content['date'][:10]}."
    ]
    measured = {n: m for n, m in content["models"].items() if m["status"] == "measured"}
    made += [_work(name, found) for name, found in measured.items()]
    loads = {
        name: found["busy_cores_of_others"]
        for name, found in content["models"].items()
        if found.get("busy_cores_of_others") is not None and found["busy_cores_of_others"] > BUSY
    }
    if loads:
        each = ", ".join(f"{cores:.1f} of {target['cores']} ({m})" for m, cores in loads.items())
        made.append(
            f"Other processes kept cores busy during the comparison: {each}. Engines whose threads "
            "spin suffer most from that: compare the fastest calls."
        )
    lost: dict[str, str] = {}
    for found in content["models"].values():
        lost |= found.get("missing_peers", {})
    made += [f"Not timed: {reason}." for reason in lost.values()]
    broken = [
        f"{name}: {claim.replace('_', ' ')}"
        for name, found in content["models"].items()
        for claim, held in found.get("claims", {}).items()
        if not held
    ]
    if broken:
        made.append(f"Not kept here: {'; '.join(broken)}.")
    return made


def print_table(content: dict[str, Any]) -> None:
    """On stdout."""
    from autotune.cli.console import table

    model, engine, *columns = _columns(content)
    joined = [(f"{name}: {what}", *rest) for name, what, *rest in rows(content)]
    table("latency of one inference", [f"{model}: {engine}", *columns], joined)
    for line in remarks(content):
        print(line)


def markdown(content: dict[str, Any]) -> str:
    """The same as Markdown."""
    columns = _columns(content)
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join(['---', '---', *['---:'] * (len(columns) - 2)])}|",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows(content)),
    ]
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks(content))])


def fill_readme(readme: Path, results: Path) -> None:
    """Put the figures of the JSON file ``results`` between the marks of ``readme``.

    Raises ``InputError`` where there are no figures or no marks.
    """
    try:
        content = json.loads(results.read_text())
        made = markdown(content)
    except FileNotFoundError:
        raise InputError(f"there is no {results}: measure first, without --readme") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{results} is not what benchmarks.latency writes ({error})") from None
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{readme} has no lines {BEGIN} and {END} to put figures between")
    readme.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", encoding="utf-8")
