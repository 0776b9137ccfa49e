"""The sections of every report, in the order of the page."""

from __future__ import annotations

import json
import platform
from typing import ClassVar

from markupsafe import Markup

from autotune.counts import counted
from autotune.durations import milliseconds as ms
from autotune.precision.told import told as precision_of
from autotune.profile.profile import KernelProfile
from autotune.report.base import Facts, ReportSection
from autotune.report.charts import Axis, Chart, bar, table

KERNELS = 25
"""Listed at most; the others are summed up."""


def paragraph(text: str) -> Markup:
    """``text`` as a paragraph."""
    return Markup("<p>{}</p>").format(text)


def warning(text: str) -> Markup:
    """``text`` as what nobody should miss."""
    return Markup('<p class="warning">{}</p>').format(text)


class Summary(ReportSection):
    """How fast it is, beside other engines."""

    name: ClassVar[str] = "summary"
    title: ClassVar[str] = "Summary"

    def html(self, facts: Facts) -> Markup:
        """Latency, memory and size, and the peers where there are any."""
        rows: list[tuple[str, ...]] = []
        if facts.bench is None:
            own = facts.profile
            rows.append(("autotune", ms(own.wall), ms(own.low), ms(own.high)))
            timed = table(("engine", "p50 ms", "p25", "p75"), rows)
        else:
            for engine in facts.bench.engines:
                ratio, apart, taken = engine.ratio, engine.difference, engine.latency
                told = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""
                name = f"{engine.name} {engine.version}".strip()
                error = f"{apart.relative:.1e}" if apart else ""
                known = engine.details
                memory = f"{known.peak_memory / 2**20:.0f}" if known else ""
                load = ms(known.load_time) if known else ""
                times = (ms(taken.p50), ms(taken.p95), ms(taken.p99))
                rows.append((name, *times, told, memory, load, error))
            columns = (
                *("engine", "p50 ms", "p95 ms", "p99 ms", "time / ours (95 %)"),
                *("peak MiB", "load ms", "difference"),
            )
            timed = table(columns, rows)
        tail = paragraph(
            f"{facts.manifest['model']['name']} on {facts.profile.cpu}, "
            f"{counted(facts.profile.threads, 'thread')}. Loading and calling it adds "
            f"{facts.memory / 2**20:.1f} MiB to a process at its peak; it takes "
            f"{facts.size / 2**20:.1f} MiB on disk."
        )
        precision = precision_of(facts.manifest["graph"].get("spaces"))
        if facts.profile.busy:
            tail = warning("The machine was busy: the times of this report mean little.") + tail
        return timed + tail + (paragraph(f"Precision: {precision}.") if precision else "")


class Roofline(ReportSection):
    """Each kernel beside what the machine can do."""

    name: ClassVar[str] = "roofline"
    title: ClassVar[str] = "Roofline"

    def html(self, facts: Facts) -> Markup | str:
        """A point for each kernel, as large as its share of the time."""
        shown = [e for e in facts.profile.entries if e.flops and e.seconds and e.roof is not None]
        if not shown:
            return ""
        roof = facts.profile.roof
        fast, slow = roof.bandwidth[0][1], roof.bandwidth[-1][1]
        rates = [entry.flop_rate for entry in shown]
        places = [entry.intensity for entry in shown]
        low, high = min([*places, 0.1]) / 1.5, max([*places, 10 * roof.peak / slow]) * 1.5
        chart = Chart(
            Axis(low, high, "FLOP per byte", True),
            Axis(min(rates) / 2e9, max([*rates, roof.peak]) * 1.6 / 1e9, "GFLOP/s", True),
            "kernels on the roofline of this machine",
        )
        for speed, kind in ((fast, "roof"), (slow, "roof far")):
            ridge = roof.peak / speed
            ends = [(low, low * speed / 1e9), (ridge, roof.peak / 1e9), (high, roof.peak / 1e9)]
            chart.line(ends, kind)
        chart.text(high, roof.peak / 1e9, f"{roof.peak / 1e9:.0f} GFLOP/s")
        for entry in shown:
            speed = entry.flop_rate / 1e9
            hint = f"{entry.label}: {speed:.1f} GFLOP/s, {entry.share:.1%} of the time"
            chart.point(entry.intensity, speed, entry.verdict, entry.share, hint)
        told = (
            f"Measured here: {roof.peak / 1e9:.0f} GFLOP/s; {fast / 1e9:.0f} GB/s in "
            f"{roof.bandwidth[0][0] >> 10} KiB (upper slope), {slow / 1e9:.0f} GB/s in "
            f"{roof.bandwidth[-1][0] >> 20} MiB (lower slope). The area of a dot is its share of "
            "the time; its colour says what bounds it: "
        )
        keys = Markup(" ").join(
            Markup('<span class="key {}">{}</span>').format(kind, kind)
            for kind in ("compute", "memory", "overhead")
        )
        above = any(entry.roof > 1 for entry in shown if entry.roof)
        note = paragraph("Above the roof, fewer operations are done than counted.") if above else ""
        return chart.svg() + Markup("<p>{}{}</p>").format(told, keys) + note


class Kernels(ReportSection):
    """Where the time goes."""

    name: ClassVar[str] = "kernels"
    title: ClassVar[str] = "Time by kernel"

    def html(self, facts: Facts) -> Markup:
        """The slowest kernels, with the time that default schedules take where it is known."""
        profile = facts.profile
        before = {e.workload: e for e in facts.before.entries} if facts.before else {}
        scale = max([e.seconds for e in profile.entries[:1]] + [e.seconds for e in before.values()])
        rows = [self._row(e, before.get(e.workload), scale) for e in profile.entries[:KERNELS]]
        rest = profile.entries[KERNELS:]
        if rest:
            seconds = sum(entry.seconds for entry in rest)
            cells = ("", ms(seconds), "", f"{seconds / profile.wall:.1%}", "", "", "", "", "")
            rows.append((f"{len(rest)} more", *cells))
        columns = ("kernel", "", "ms", "default ms", "share", "calls", "GFLOP/s", "GB/s", "roof",
                   "bound by")  # fmt: skip
        told = (
            f"One inference takes {ms(profile.wall)} ms: kernels {ms(profile.kernels)}, runtime "
            f"{ms(profile.runtime)}, rest {ms(profile.rest)}."
        )
        if before:
            told += " Kernels of default schedules were timed later, the whole models in turns."
        return table(columns, rows, texts=2) + paragraph(told)

    def _row(
        self, entry: KernelProfile, before: KernelProfile | None, scale: float
    ) -> tuple[str | Markup, ...]:
        bars = bar(entry.seconds / scale)
        if before is not None:
            bars += bar(before.seconds / scale, "was")
        name: str | Markup = entry.label
        if entry.source:
            every = " | ".join(", ".join(operators) for operators in entry.operators)
            told = Markup('{}<div class="source" title="{}">{}</div>')
            name = told.format(entry.label, every, entry.source)
        return (
            name,
            Markup('<div class="bars">{}</div>').format(bars),
            ms(entry.seconds),
            ms(before.seconds) if before is not None else "",
            f"{entry.share:.1%}",
            str(entry.calls),
            f"{entry.flop_rate / 1e9:.1f}",
            f"{entry.byte_rate / 1e9:.1f}",
            "" if entry.roof is None else f"{entry.roof:.0%}",
            entry.verdict,
        )


class Tuning(ReportSection):
    """How it was tuned."""

    name: ClassVar[str] = "tuning"
    title: ClassVar[str] = "Tuning"

    def html(self, facts: Facts) -> Markup | str:
        """The curve of the whole model over the trials, and the runs."""
        known = facts.history
        if known is None or len(known.curve) < 2:
            return ""
        top = max(seconds for _, seconds in known.curve) * 1e3
        chart = Chart(
            Axis(1, max(2, known.trials), "trials", True),
            Axis(0.0, top * 1.05, "sum of the tasks, ms"),
            "the time of the whole model over the trials",
        )
        chart.line([(t, seconds * 1e3) for t, seconds in known.curve], "curve", steps=True)
        told = (
            f"{known.trials} candidates were measured. The curve is the sum over the tasks of "
            "calls times the best first measurement; a task that waits counts with its first."
        )
        rows = [
            (run, begun[:19].replace("T", " "), state, str(trials))
            for run, begun, trials, state in known.runs
        ]
        runs = table(("run", "started (UTC)", "state", "trials"), rows, texts=3)
        return chart.svg() + paragraph(told) + runs


class Choices(ReportSection):
    """What was chosen."""

    name: ClassVar[str] = "choices"
    title: ClassVar[str] = "What was chosen"

    def html(self, facts: Facts) -> Markup:
        """Graph choices and schedules, from the manifest."""
        spaces = facts.manifest["graph"].get("spaces", {})
        graph = [(name, _short(told["parameters"])) for name, told in spaces.items()]
        rows = [
            (
                task["name"],
                (task.get("arguments") or [""])[-1],
                task["space"] or "none",
                task["source"] + (f" ({task['note']})" if task["note"] else ""),
                _short(task["parameters"]),
            )
            for task in facts.manifest["tasks"]
        ]
        columns = ("task", "result", "search space", "from", "parameters")
        schedules = table(columns, rows, texts=5)
        fold = Markup("<details><summary>{} schedules</summary>{}</details>")
        chosen = table(("graph space", "choices"), graph, texts=2) if graph else Markup("")
        return chosen + fold.format(len(rows), schedules)


class Failures(ReportSection):
    """What went wrong, and what may not be trusted."""

    name: ClassVar[str] = "failures"
    title: ClassVar[str] = "Failures and disturbances"

    def html(self, facts: Facts) -> Markup | str:
        """Failed candidates by cause, and measurements that the machine disturbed."""
        known = facts.history
        if known is None:
            return ""
        told = ", ".join(f"{count} {kind}" for kind, count in known.outcomes.items())
        parts = paragraph(f"Records by outcome: {told or 'none'}.")
        if known.causes:
            rows = [(kind, text, str(count)) for kind, text, count in known.causes]
            parts += table(("outcome", "cause", "records"), rows, texts=2)
        if known.disturbed:
            parts += warning(
                f"The machine was disturbed while {known.disturbed} of {known.known} candidates "
                "were measured: autotune db verify measures them again."
            )
        for note in facts.manifest["notes"]:
            parts += warning(note)
        return parts


class Environment(ReportSection):
    """Where, with what, and how to get the same again."""

    name: ClassVar[str] = "environment"
    title: ClassVar[str] = "Environment and reproduction"

    def html(self, facts: Facts) -> Markup:
        """Target, versions, digests and commands."""
        target = facts.manifest["target"]
        rows = [
            ("processor", f"{target['model']} ({target['cpu'] or target['triple']})"),
            ("instruction sets", " ".join(f.lstrip("+") for f in target["features"])),
            ("cores, threads", f"{target['cores']}, {target['threads']}"),
            ("caches", f"{target['l1']} / {target['l2']} / {target['l3']} bytes"),
            ("system", f"{platform.system()} {platform.release()}"),
            ("python", platform.python_version()),
            *sorted(facts.manifest["versions"].items()),
            ("model", facts.manifest["model"]["digest"]),
            *((name, entry["sha256"]) for name, entry in facts.manifest["files"].items()),
        ]
        model, database = facts.model or "MODEL", facts.database or "DATABASE"
        commands = (
            f"autotune reproduce {facts.artifact} --model {model} --db {database}\n"
            f"autotune profile {facts.artifact}\n"
            f"autotune bench {facts.artifact} --model {model}"
        )
        return table(("", ""), rows, texts=2) + Markup("<pre>{}</pre>").format(commands)


def _short(parameters: object) -> str:
    text = json.dumps(parameters, sort_keys=True, separators=(", ", ": "))[1:-1].replace('"', "")
    return text if len(text) <= 300 else f"{text[:300]}..."
