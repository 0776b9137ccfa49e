"""Whether a search that learns is worth it: ``python -m benchmarks.search``.

On each of four tasks every sampler searches with several seeds, all in turns and on one measuring
engine. A candidate that two of them ask for is measured once, so none is favoured by a moment. In
the end every candidate that ever led a search is measured again, all together and in turns, and
that is what counts: looks at the luckiest of many flatter whoever looked most.

"transfer" is our sampler after it has learned from the candidates of the other tasks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from autotune.search.samplers import SAMPLERS
from benchmarks.candidates import conv3x3, depthwise3x3, gemm, softmax, task_of
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.search_figures import incumbents, levels, of_sampler, plot, ranking

WORKLOADS: dict[str, Callable[[], Any]] = {
    "gemm": lambda: gemm(128, 1536, 384),
    "conv": lambda: conv3x3(28, 128),
    "depthwise": lambda: depthwise3x3(56, 144),
    "softmax": lambda: softmax(12, 128, 128),
}
TRANSFER = "transfer"

ROUNDS = 5
"""How often the leaders are measured again."""

LEARNED = 32
"""Candidates that the cost model learns from before it orders the others of its task."""

AIM = 0.5
"""Of the trials that others need to 95 %, those that ours may."""


class Cached:
    """A runner that measures each candidate once; belongs to one task."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.known: dict[str, Any] = {}

    def run(self, task: Any, candidates: Sequence[Any]) -> list[Any]:
        """What became of ``candidates``, in their order."""
        new = [candidate for candidate in candidates if candidate.key not in self.known]
        for measurement in self.runner.run(task, new):
            self.known[measurement.candidate.key] = measurement
        return [self.known[candidate.key] for candidate in candidates]


def seconds_of(measurement: Any) -> float | None:
    """Seconds of a right candidate."""
    return getattr(measurement.outcome, "seconds", None)


class Searcher:
    """A sampler with a seed on one task."""

    def __init__(self, task: Any, target: Any, sampler: str, seed: int, model: Any = None) -> None:
        from autotune.search.study import Patience, TaskStudy

        never = Patience(least=10**9)
        name = "cost-model" if sampler == TRANSFER else sampler
        self.model = model
        self.study = TaskStudy(
            task, target, sampler=name, model=model, seed=seed, patience=never
        )
        self.looks: list[tuple[str, float | None]] = []
        self.own_seconds = 0.0
        """What it took to think of candidates, without measuring."""

    def step(self, engine: Cached, task: Any, batch: int) -> bool:
        """Ask, measure, tell; False where there is nothing left to ask."""
        begun = time.perf_counter()
        if self.model is not None:
            self.model.fit(self.study.observations)
        asked = self.study.ask(batch if self.study.trials else 1)
        self.own_seconds += time.perf_counter() - begun
        for measurement in engine.run(task, asked):
            self.study.tell(measurement)
            self.looks.append((measurement.candidate.key, seconds_of(measurement)))
        return bool(asked)


def search(
    task: Any,
    target: Any,
    engine: Cached,
    samplers: Sequence[str],
    options: argparse.Namespace,
    ground: Sequence[Any] = (),
) -> dict[str, list[Searcher]]:
    """Let each of ``samplers`` search with every seed, in turns; "transfer" learns ``ground``."""
    from cost_models.xgboost import XGBoostModel

    searchers: dict[str, list[Searcher]] = {name: [] for name in samplers}
    for seed in range(options.seeds):
        for name in samplers:
            model = None
            if name in ("cost-model", TRANSFER):
                model = XGBoostModel(seed=seed)
                if name == TRANSFER:
                    model.ground(ground)
            searchers[name].append(Searcher(task, target, name, seed, model))
    everyone = [one for several in searchers.values() for one in several]
    going = list(everyone)
    while going:
        for one in list(going):
            left = options.trials - len(one.looks)
            if left <= 0 or not one.step(engine, task, min(options.batch, left)):
                going.remove(one)
    return searchers


def again(task: Any, runner: Any, candidates: Sequence[Any]) -> dict[str, float]:
    """Seconds of each of ``candidates``, the median of rounds in which all have their turn."""
    taken: dict[str, list[float]] = {candidate.key: [] for candidate in candidates}
    for number in range(ROUNDS):
        runner.forget(task)
        order = candidates if number % 2 else list(reversed(candidates))
        for measurement in runner.run(task, order):
            seconds = seconds_of(measurement)
            if seconds is not None:
                taken[measurement.candidate.key].append(seconds)
    return {key: statistics.median(values) for key, values in taken.items() if values}


def observed(task: Any, target: Any, engine: Cached) -> list[Any]:
    """What was measured, as the cost model takes it."""
    from cost_models.base import Observation
    from cost_models.features import features_or_none

    found = []
    for measurement in engine.known.values():
        features = features_or_none(task, target, measurement.candidate)
        if features is not None:
            seconds = seconds_of(measurement)
            found.append(
                Observation(task, target, measurement.candidate, features, seconds, seconds is None)
            )
    return found


def judge_model(seen: Sequence[Any], ground: Sequence[Any]) -> dict[str, Any]:
    """How the cost model orders candidates that it has not seen, of this task and of a new one."""
    import numpy as np

    from cost_models.xgboost import XGBoostModel

    right = [one for one in seen if one.seconds is not None]
    order = np.random.default_rng(0).permutation(len(right))
    train = [right[i] for i in order[:LEARNED]]
    test = [right[i] for i in order[LEARNED:]]
    if len(test) < LEARNED:
        return {}
    times = [one.seconds for one in test]
    found: dict[str, Any] = {"held_out": len(test)}
    for name, grounded, own in (
        ("within", False, True), ("unseen", True, False), ("both", True, True),
    ):  # fmt: skip
        model = XGBoostModel()
        if grounded:
            if not ground:
                continue
            model.ground(ground)
        if own:
            model.fit(train)
        candidates = [one.candidate for one in test]
        scores = model.rank(test[0].task, test[0].target, candidates)
        found[name] = ranking(list(map(float, scores)), times)
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``InputError`` where argparse does not end it."""
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--workloads", default=",".join(WORKLOADS), help="by commas (default: %(default)s)")
    every = ",".join((TRANSFER, *SAMPLERS))
    add("--samplers", default=every, help="by commas (default: %(default)s)")
    add("--seeds", type=int, default=5, help="of each sampler (default: %(default)s)")
    add("--trials", type=int, default=128, help="of each search (default: %(default)s)")
    add("--batch", type=int, default=4, help="candidates asked for at a time (%(default)s)")
    add("--json", type=Path, default=Path("build/search.json"), help="(%(default)s)")
    add("--svg", type=Path, default=Path("build/search.svg"), help="the plot (%(default)s)")
    add("--threads", type=int, help="of one kernel (default: the physical cores)")
    options = parser.parse_args(arguments)
    for name, known in (("workloads", WORKLOADS), ("samplers", (TRANSFER, *SAMPLERS))):
        given = getattr(options, name).split(",")
        setattr(options, name, given)
        if unknown := sorted(set(given) - set(known)):
            raise InputError(f"no {name} {', '.join(unknown)}: there are {', '.join(known)}")
    if min(options.seeds, options.trials, options.batch) < 1:
        raise InputError("--seeds, --trials and --batch must be 1 or more")
    return options


def run(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Search each task; "transfer" comes in a second pass, when all have candidates to teach."""
    from autotune.measure.local import LocalRunner
    from autotune.target import check_measurable, resolve
    from autotune.threads import set_threads
    from search_spaces.light import light_import

    target = resolve("native", options.threads)
    check_measurable(target)
    set_threads(target.threads)
    light_import()
    tasks = {name: task_of(WORKLOADS[name](), target) for name in options.workloads}
    first = [name for name in options.samplers if name != TRANSFER]
    with Others() as others, LocalRunner(target) as runner:
        taught: dict[str, list[Any]] = {}
        found: dict[str, dict[str, list[Searcher]]] = {}
        engines: dict[str, Cached] = {}
        for name, task in tasks.items():
            print(f"{name}: searching", file=sys.stderr, flush=True)
            engines[name] = Cached(runner)
            found[name] = search(task, target, engines[name], first, options)
            taught[name] = observed(task, target, engines[name])
        for name, task in tasks.items():
            ground = [one for other, seen in taught.items() if other != name for one in seen]
            judged = judge_model(taught[name], ground)
            if TRANSFER in options.samplers and ground:
                print(f"{name}: searching with what others taught", file=sys.stderr, flush=True)
                learned = search(task, target, engines[name], [TRANSFER], options, ground)
                found[name] = learned | found[name]
            content["tasks"][name] = figures(task, runner, found[name], engines[name], judged)
            write_json(options.json, content)
    content["busy_cores_of_others"] = others.cores


def figures(
    task: Any, runner: Any, found: dict[str, list[Searcher]], engine: Cached, judged: Any
) -> dict[str, Any]:
    """Measure whoever led again, and say how far each searcher was."""
    led = {
        key
        for several in found.values()
        for one in several
        for key in incumbents(one.looks)
        if key is not None
    }
    truth = again(task, runner, [engine.known[key].candidate for key in sorted(led)])
    # One that fails when it is measured again is as slow as the slowest.
    worst = max(truth.values())
    truth |= {key: worst for key in led - set(truth)}
    best = min(truth.values())
    curves = {
        name: [levels(one.looks, truth, best) for one in several] for name, several in found.items()
    }
    return {
        "best_seconds": best,
        "measured": len(engine.known),
        "measured_again": len(truth),
        "samplers": {
            name: of_sampler(several)
            | {"thinking_seconds": statistics.median(one.own_seconds for one in found[name])}
            for name, several in curves.items()
        },
        "cost_model": judged,
    }


def told(content: dict[str, Any]) -> dict[str, bool]:
    """Print the figures; the claims."""
    claims = {}
    for name, found in content["tasks"].items():
        print(f"{name}: {found['measured']} candidates, best {found['best_seconds'] * 1e6:.1f} us")
        for sampler, one in found["samplers"].items():
            after = "  ".join(
                f"{n}: {v['median']:.2f} ({v['low']:.2f} to {v['high']:.2f})"
                for n, v in one["after"].items()
            )
            print(
                f"  {sampler:10} {after}  trials to 95 %: {one['trials_to_0.95']:.0f}, to 99 %: "
                f"{one['trials_to_0.99']:.0f}, thinking {one['thinking_seconds']:.1f} s"
            )
        for way, score in found["cost_model"].items():
            if way != "held_out":
                print(
                    f"  cost model, {way}: pairs {score['pairs']:.2f}, recall@8 "
                    f"{score['recall']:.2f}, best by score {score['top1']:.2f}"
                )
        needed = {s: one["trials_to_0.95"] for s, one in found["samplers"].items()}
        others = [needed[s] for s in ("tpe", "random") if s in needed]
        if "cost-model" in needed and others:
            claims[f"{name}: half the trials"] = needed["cost-model"] <= AIM * min(others)
    return claims


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done, 1 a claim was missed, 2 wrong use."""
    try:
        options = parse(arguments)
        settings = settings_of(options)
        content: dict[str, Any] = {
            "benchmark": "search", **describe(options.threads), "settings": settings, "tasks": {},
        }  # fmt: skip
        run(options, content)
    except UserError as error:
        print(f"benchmarks.search: {error}", file=sys.stderr)
        return 2
    content["claims"] = told(content)
    write_json(options.json, content)
    curves = {
        name: {sampler: one["median"] for sampler, one in found["samplers"].items()}
        for name, found in content["tasks"].items()
    }
    options.svg.write_text(plot(curves))
    print(f"{options.svg} shows the curves")
    return 0 if all(content["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
