"""What benchmarks that compare several builds of each model have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UserError
from benchmarks.latency import write_json
from benchmarks.machine import Others, describe, settings_of
from benchmarks.models import NAMES
from benchmarks.options import several


def parser(name: str, description: str | None, trials: str, seconds: float) -> Any:
    """The command line of the benchmark ``name``; ``trials`` says what they are measured of."""
    made = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=description)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add, work = made.add_argument, Path("build") / name
    add("--models", default=",".join(NAMES), help="by commas (default: %(default)s)")
    add("--trials", type=int, default=0, help=f"of {trials} (default: default schedules)")
    add("--seconds", type=float, default=seconds, help="of timing a model (default: %(default)s)")
    add("--rounds", type=int, default=20, help="turns of each build (default: %(default)s)")
    add("--work", type=Path, default=work, help="folder (%(default)s)")
    add("--json", type=Path, default=work.with_suffix(".json"), help="(%(default)s)")
    add("--threads", type=int, help="of one inference (default: the physical cores)")
    return made


def checked(options: argparse.Namespace, known: Collection[str]) -> argparse.Namespace:
    """What ``parser`` read; raises ``InputError`` where that makes no sense."""
    options.models = several(options.models, known, "model")
    if options.rounds < 1 or options.trials < 0:
        raise InputError("--rounds must be 1 or more, and --trials must be 0 or more")
    return options


def each_model(
    benchmark: str,
    parse: Callable[[], argparse.Namespace],
    measured: Callable[[str, argparse.Namespace], dict[str, Any]],
    show: Callable[[str, dict[str, Any]], None],
) -> tuple[argparse.Namespace, dict[str, Any]] | None:
    """Measure and show every model that is asked for, and write what is known after each.

    Returns the options and what is to be written in the end; None where a sentence was printed.
    """
    try:
        options = parse()
        options.work.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"benchmark": benchmark, **describe(options.threads)}
        content |= {"settings": settings_of(options), "models": {}}
        with Others() as others:
            for name in options.models:
                print(f"{name}", file=sys.stderr, flush=True)
                content["models"][name] = found = measured(name, options)
                show(name, found)
                write_json(options.json, content)
    except UserError as error:
        print(f"benchmarks.{benchmark}: {error}", file=sys.stderr)
        return None
    return options, {**content, "busy_cores_of_others": others.cores}


def tune(fused: Any, target: Any, runner: Any, database: Any, trials: int) -> None:
    """Measure ``trials`` candidates of the tasks of ``fused``, one of each at least."""
    from autotune.search.budget import Budget
    from autotune.search.loop import tune_tasks
    from autotune.search.settings import SearchSettings
    from search_spaces.registry import schedulable
    from tuning_db.records import ModelRow

    tasks = [task for task in fused.tasks if schedulable(task, target)]
    settings = SearchSettings(budget=Budget(max(trials, len(tasks))))
    row = ModelRow(fused.digest, fused.name)  # what is confirmed is noted with the model
    tune_tasks(tasks, target, runner, database, settings, model=row)


def say(line: str) -> None:
    """A line of progress."""
    print(f"  {line}", file=sys.stderr, flush=True)
