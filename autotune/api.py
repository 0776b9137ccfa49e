"""Searching on a machine: what ``autotune.tune`` and ``autotune db verify`` do.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError, TargetError
from autotune.several import CompiledSizes, built_sizes, each_size, together
from autotune.steps import (
    CompileResult,
    Model,
    Shapes,
    Status,
    best_schedules,
    built,
    is_onnx,
    prepared,
    resolved_target,
    source_of,
    tell,
)
from search_spaces.task import Target
from tuning_db.drift import DISTURBED, SLOWER

if TYPE_CHECKING:
    from autotune.frontends import ImportCheck
    from autotune.goal import WholeModel
    from autotune.graphs import GraphOutcome
    from autotune.measure.runners import RunnerFactory
    from autotune.measure.tracker import Device
    from autotune.precision.evaluation import Evaluate
    from autotune.search.models import CostModelFactory
    from autotune.search.progress import Progress, SearchSummary
    from autotune.search.samplers import SamplerFactory
    from autotune.search.verification import Verification

TRIALS = 64
"""Trials for each task, where neither trials nor seconds are given."""

GRAPH_SHARE = 0.5
"""Of the time for a search, and of its trials, what the search of the graph may take besides."""


@dataclass(frozen=True)
class TuneResult:
    """How a tuning run went. ``compiled`` is None without an output, or after an interruption.

    ``untunable`` names the tasks that no search space matches; they are compiled as they are.
    ``graph`` is what became of a searched graph, None where none was found that promised a gain.
    """

    search: SearchSummary
    import_check: ImportCheck
    compiled: CompileResult | CompiledSizes | None
    untunable: tuple[str, ...] = ()
    graph: GraphOutcome | None = None


def tune(
    model: Model,
    input_shapes: Shapes | Sequence[Shapes] | None = None,
    target: str | Target = "native",
    trials: int | None = None,
    seconds: float | None = None,
    database: str | Path = "tuning.db",
    output: str | Path | None = None,
    sampler: str | SamplerFactory = "cost-model",
    seed: int = 0,
    threads: int | None = None,
    device: Device | None = None,
    cores: int | None = None,
    ray: str | None = None,
    cache: str = "cold",
    transfer: bool = True,
    until: str | None = None,
    graph: bool = False,
    accuracy_budget: str | float | None = None,
    calibration: str | Path | None = None,
    evaluate: str | Evaluate | None = None,
    precisions: Sequence[str] = (),
    cost_model: str | CostModelFactory | None = None,
    runner: str | RunnerFactory | None = None,
    progress: Callable[[Progress], None] | None = None,
    status: Status | None = None,
    example_inputs: Any = None,
) -> TuneResult:
    """Search schedules for ``model`` on this machine, and compile the best.

    ``model`` is an ONNX file, a .pt2 file, a ``torch.export.ExportedProgram``, or a
    ``torch.nn.Module`` with ``example_inputs``: a tensor, a sequence of arguments, or a mapping of
    arguments by name; or whatever else an installed frontend takes. ``input_shapes`` fixes the
    dimensions that the model leaves open; with several of them the tasks of all sizes are searched
    together, and the artifact holds a program for each (see ``autotune.compile``).

    The search ends after ``trials`` measured candidates (earlier runs in the same ``database``
    count) or ``seconds`` of search, whichever is first; without both, after ``TRIALS`` for each
    task. Everything measured is in the database as soon as it is, so that the same call continues
    after an interruption. The artifact is written to ``output`` if that is given. ``sampler``,
    ``cost_model`` and ``runner`` are plugins by name, with settings ("tpe:n_startup_trials=5"), or
    make one (``autotune.search.samplers``, ``autotune.search.models``,
    ``autotune.measure.runners``). With ``device`` candidates are measured there, and ``target``
    says what it is. With ``ray`` they are measured on the hosts of the Ray cluster at that address,
    "auto" for the one of this host, each of which has to be the target. ``cores`` is how many of
    this machine's may be used: by default those of one inference, with more the next candidates are
    built while one is measured. ``cache`` says where a kernel finds its weights: "cold" is in
    memory, as in a model, "hot" in the CPU's caches. With ``transfer`` the search begins with what
    the database knows of similar tasks and targets. ``until`` ends it once an inference takes no
    longer than that: a time ("2.5ms"), or another engine's ("onnxruntime", "openvino:1.1" for 1.1
    times as fast). The tasks together have to be as fast, and then the whole model, which is built
    and timed here, beside the engine (on a device only the tasks count). With ``graph`` the graph
    of the model is searched first, and its winner confirmed against the default graph in the end;
    the database remembers it, and later calls use it.

    With ``accuracy_budget`` sums of products may be computed in ``precisions`` ("bfloat16",
    "bfloat16x3", "int8"; all that the target is faster in by default), as long as the model loses
    no more than that: a number is the relative L2 error of every output, "abs:0.05" and
    "cosine:0.999" are other forms, and with ``evaluate`` it is what may be lost of the value of
    that function (or "module:function"), which is given what runs the model and returns a number,
    the greater the better. ``calibration`` is an .npz file with samples of each input, of which
    some are held back for the result; int8 needs them, and without them inputs are random. What is
    chosen is compared with float32 in the end, which stays where it is as fast. ``progress`` is
    called after each measurement, ``status`` with a line before each long step.

    Raises a ``UserError`` with a sentence that says what to do. An interruption during the search
    (``KeyboardInterrupt``) is no error: ``result.search.stopped`` is then "interrupted".
    """
    from autotune.artifact.sizes import names_of
    from autotune.database import check_timing, open_database
    from autotune.goal import Goal, WholeModel
    from autotune.graphs import confirmed, even, in_precision, kept_choices, search_graph
    from autotune.measure.runners import LOCAL, make_runner, runner_choice
    from autotune.measure.timing import CACHES, TimingPlan
    from autotune.precision.agreement import in_full
    from autotune.precision.asked import asked
    from autotune.search.budget import Budget
    from autotune.search.models import make_model, unguided
    from autotune.search.plan import plan
    from autotune.search.samplers import guided, sampler_choice
    from autotune.search.settings import SearchSettings
    from autotune.target import check_measurable

    if trials is not None and trials < 1:
        raise InputError(f"the number of trials must be 1 or more, not {trials}")
    if seconds is not None and not seconds > 0:
        raise InputError(f"the time for the search must be more than nothing, not {seconds} s")
    if isinstance(sampler, str):
        sampler_choice(sampler)
    if cost_model is not None:
        if not guided(sampler):
            raise unguided(str(sampler))
        make_model(cost_model, seed)  # what it refuses is to be known before anything is begun
    measuring = runner_choice(runner, device)
    sizes = each_size(input_shapes)
    if len(sizes) > 1 and (graph or until is not None or accuracy_budget is not None):
        raise InputError(
            "--graph, --until and --accuracy-budget are for one size: give --input a single one"
        )
    accuracy = asked(accuracy_budget, evaluate, calibration, precisions)
    goal = None if until is None else Goal.parse(until)
    source = source_of(model, example_inputs)
    if goal is not None and goal.engine and not is_onnx(source):
        raise InputError(f"{goal.engine} is given ONNX files alone: give --until as a time")
    resolved = resolved_target(target, threads, device.key if device is not None else "")
    if goal is not None and goal.engine and resolved.device:
        raise InputError(f"{goal.engine} cannot be timed on a device: give --until as a time")
    if ray is not None:
        from autotune.measure.cluster import check_ray

        check_ray(ray)
        if resolved.device or runner is not None:
            raise InputError(
                "candidates are measured by --ray, by --rpc or by --runner: name one of them"
            )
    if device is not None:
        if cores is not None:
            raise InputError("--cores is about this machine, and --rpc measures on another one")
        from autotune.measure.tracker import Tracker

        Tracker.parse(device.tracker)
        if not resolved.device:
            raise TargetError(
                "a device that is measured over the network needs a name at its tracker: use --key"
            )
        if graph or accuracy is not None:
            asks = "--graph" if graph else "--accuracy-budget"
            raise InputError(f"{asks} compares whole models on this machine: it needs no --rpc")
    elif resolved.device:
        raise TargetError(
            f"the target is the device {resolved.device!r}: say with --rpc HOST:PORT where the "
            "tracker is that knows it"
        )
    here = ray is None and measuring.name == LOCAL
    whole = graph or goal is not None or accuracy is not None
    if here or (ray is not None and whole):  # its hosts answer for themselves
        check_measurable(resolved)
    if output is not None:
        from autotune.artifact.output import check_output

        check_output(output)
    if cache not in CACHES:
        raise InputError(f"there is no cache {cache!r}: choose {' or '.join(CACHES)}")
    check_timing(database, resolved, cache)
    # The measuring processes start while the model is imported.
    plan_of_timing = TimingPlan(cache=cache)
    if ray is None:
        made = make_runner(
            measuring, resolved, plan_of_timing, cores=cores, device=device, status=status
        )
    else:
        from autotune.measure.cluster import RayRunner

        made = RayRunner(resolved, ray, plan=plan_of_timing, cores=cores, status=status)
    with made as measurer:
        several = [
            prepared(
                source,
                one,
                resolved,
                status,
                # Shorter numbers are for who asks for them, each time.
                lambda m: in_full(kept_choices(database, m, resolved)),
            )
            for one in sizes
        ]
        if len(several) > 1:
            names_of([one.fused for one in several])  # says which size is named twice
        ready = several[0]
        imported, fused = ready.imported, ready.fused

        from autotune.frontends.sampling import sample_inputs
        from autotune.search.loop import tune_tasks
        from autotune.search.recording import register_model
        from search_spaces.registry import schedulable
        from tuning_db.records import ModelRow

        settings = SearchSettings(
            sampler=sampler,
            cost_model=cost_model,
            seed=seed,
            batch=max(SearchSettings.batch, measurer.parallel),
            cache=cache,
            transfer=transfer,
        )
        choice, keeper, precision = None, None, None
        if accuracy is not None:
            keeper, precision = accuracy.planned(imported, resolved, seed, status)
        if precision is not None and not graph:
            choice = in_precision(imported, resolved, precision)
        if graph:
            with open_database(database) as opened:
                spent, looks = (
                    math.inf if most is None else GRAPH_SHARE * most for most in (seconds, trials)
                )
                choice = search_graph(
                    imported, resolved, measurer, opened, settings, status, spent, looks, precision
                )
        if choice is not None:
            fused = choice.winner.fused
        tasks = together([replace(ready, fused=fused), *several[1:]])
        tunable = [task for task in tasks if schedulable(task, resolved)]
        untunable = tuple(t.workload.name for t in tasks if t not in tunable)
        if trials is None and seconds is None:
            trials = TRIALS * len(tunable)
        budget = Budget(trials, seconds)
        race = None
        if goal is not None:
            if goal.engine:
                tell(status, f"timing {goal.engine}")
            race = goal.race(source, imported, resolved.threads, seed)
        settings = replace(settings, budget=budget, until=race.seconds if race else None)
        with open_database(database) as opened:
            trial = None
            if race is not None and not resolved.device:
                trial = WholeModel(race, fused, opened, status)
            tell(status, plan(tunable, resolved, opened, settings))
            said = progress
            if progress is not None and trial is not None:
                said = _with_timed(progress, trial)
            summary = tune_tasks(
                tunable,
                resolved,
                measurer,
                opened,
                settings,
                said,
                model=ModelRow(fused.digest, fused.name) if len(several) == 1 else None,
                whole=trial,
            )
            searched = {task.workload.key for task in tunable}
            for one in several if len(several) > 1 else ():
                own = [task for task in one.fused.tasks if task.workload.key in searched]
                row = ModelRow(one.fused.digest, one.fused.name)
                register_model(opened, row, resolved, own)
            outcome = None
            if choice is not None and summary.stopped != "interrupted":
                even(choice, measurer, opened, settings, status)
                if keeper is not None:
                    choice = keeper.held(choice, opened)
            if choice is not None and summary.stopped != "interrupted":
                outcome = confirmed(choice, opened, sample_inputs(imported, seed), status)
                fused = outcome.fused
    compiled: CompileResult | CompiledSizes | None = None
    if output is None or summary.stopped == "interrupted":
        pass
    elif len(several) > 1:
        chosen = [replace(o, schedules=best_schedules(o.fused, database)) for o in several]
        compiled = built_sizes(chosen, output, status)
    else:
        schedules = best_schedules(fused, database)
        made_before = None if trial is None else trial.made(fused, schedules)
        ready = replace(ready, fused=fused, schedules=schedules, compiled=made_before)
        compiled = built(ready, output, status)
    return TuneResult(summary, ready.check, compiled, untunable, outcome)


def _with_timed(told: Callable[[Progress], None], whole: WholeModel) -> Callable[[Progress], None]:
    """``told`` with the seconds of the whole model, once it was timed."""
    return lambda state: told(replace(state, timed=whole.seconds))


def verify(
    database: str | Path = "tuning.db",
    target: str | Target = "native",
    above: float = DISTURBED,
    threads: int | None = None,
    records: Sequence[int] | None = None,
    best: bool = False,
    slower: float = SLOWER,
    progress: Callable[[Progress], None] | None = None,
    status: Status | None = None,
) -> Verification:
    """Measure candidates on this machine again, and tell which records no longer hold.

    ``records`` are ids; ``best`` means the best record of each task. Without either it is every
    candidate on ``target`` whose latest record was taken while a fixed kernel was more than
    ``above`` times slower than undisturbed. A record holds if its candidate takes no more than
    ``slower`` times as long, on a machine that is not disturbed. The finals of the tasks are held
    again. Raises a ``UserError``; an interruption is no error, ``result.interrupted`` is then true.
    """
    from autotune.database import chosen_records, open_database, timing_of
    from autotune.measure.local import LocalRunner
    from autotune.measure.timing import TimingPlan
    from autotune.search import verification
    from autotune.search.settings import SearchSettings
    from autotune.target import check_measurable

    for value, what in ((above, "a disturbed machine"), (slower, "what no longer holds")):
        if not value > 1:
            raise InputError(f"{what} is more than 1 times slower, not {value}")
    resolved = resolved_target(target, threads)
    check_measurable(resolved)
    with open_database(database, create=False) as opened:
        if opened.target(resolved.digest) is None:
            known = ", ".join(f"{row.model} ({row.digest[:12]})" for row in opened.targets())
            raise TargetError(
                f"{database} holds no records of this target (of {resolved.threads} threads), but "
                f"of {known or 'none'}: name the target with --target and --threads"
            )
        chosen = chosen_records(opened, resolved, records, best)
        tell(status, "measuring records again")
        settings = SearchSettings(sampler="random", cache=timing_of(opened, resolved))
        with LocalRunner(resolved, plan=TimingPlan(cache=settings.cache)) as runner:
            return verification.verify(
                opened,
                resolved,
                runner,
                chosen,
                above=above,
                slower=slower,
                settings=settings,
                progress=progress,
            )
