"""MetaSchedule's evolutionary search, with candidates that our engine measures.

So that searches are compared, and not measuring engines: its builder and runner hand the scheduled
module to an engine of ours, as a candidate of a space that holds nothing but that module.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.base import SearchSpace
from search_spaces.registry import register
from search_spaces.task import Candidate, Parameters, ParameterValue, Target, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from autotune.measure.base import Measurement

Measure = Callable[[Task, Sequence[Candidate]], "Iterable[Measurement]"]

_OWNER = "autotune.task"
"""Attribute of a function that says whose it is: a builder is not told."""


class ModuleSpace(SearchSpace):
    """A scheduled module as a candidate. There is nothing to choose."""

    name = "metaschedule.module"
    priority = -1000

    def matches(self, task: Task, target: Target) -> bool:
        return False  # it is named, never offered

    def parameters(self, task: Task, target: Target) -> dict[str, BaseDistribution]:
        return {}

    def default(self, task: Task, target: Target) -> dict[str, ParameterValue]:
        raise NotImplementedError("a module has no default")

    def rewrite(self, module: Any, task: Task, target: Target, parameters: Parameters) -> Any:
        import tvm

        return tvm.ir.load_json(str(parameters["module"]))

    def apply(self, schedule: Any, task: Task, target: Target, parameters: Parameters) -> None:
        pass


register(ModuleSpace())


def candidate_of(module: Any) -> Candidate:
    """The candidate that is ``module``, an IRModule."""
    import tvm

    return Candidate(ModuleSpace.name, ModuleSpace.version, {"module": tvm.ir.save_json(module)})


def search(
    tasks: Sequence[Task],
    target: Target,
    measure: Measure,
    *,
    trials: int,
    seed: int,
) -> None:
    """Let it search ``tasks`` with ``trials`` candidates in all, which ``measure`` measures.

    Its settings are its defaults, evolution guided by its XGBoost model. Weights may be packed.
    """
    import tvm
    import tvm.s_tir.tensor_intrin.x86  # its rules name these; ``light_import`` left them out
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.meta_schedule.utils import fork_seed

    owners = {str(i): task for i, task in enumerate(tasks)}
    with tempfile.TemporaryDirectory() as folder:
        contexts = [
            meta_schedule.TuneContext(
                mod=_function(task, owner),
                target=tvm.target.Target(target.tvm()),
                space_generator="post-order-apply",
                search_strategy="evolutionary",
                task_name=f"task{owner}",
                rand_state=state,
                num_threads=target.threads,
            ).clone()
            for (owner, task), state in zip(
                owners.items(), fork_seed(seed + 1, n=len(owners)), strict=True
            )
        ]
        builder, runner = _adapters(owners, measure, Path(folder))
        meta_schedule.tune.tune_tasks(
            tasks=contexts,
            task_weights=[float(task.calls) for task in tasks],
            work_dir=folder,
            max_trials_global=trials,
            # It gives each task that many before any has a second turn.
            num_trials_per_iter=min(64, max(1, trials // len(tasks))),
            builder=builder,
            runner=runner,
            database="memory",
        )


def _function(task: Task, owner: str) -> Any:
    """The function of ``task``, with whose it is, and that its weights may be laid out anew."""
    from search_spaces.scheduling import load_function

    function = load_function(task)["main"].with_attr(_OWNER, owner)
    constants = list(task.workload.constants)
    return function.with_attr("layout_free_buffers", constants) if constants else function


def _adapters(owners: dict[str, Task], measure: Measure, folder: Path) -> tuple[Any, Any]:
    """A builder that builds nothing, and a runner that gives what it was told to ``measure``.

    What is "built" lies in a folder of its own inside ``folder``: MetaSchedule removes it.
    """
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule import builder, runner

    from benchmarks.searches import seconds_of

    waiting: dict[str, tuple[Task, Candidate]] = {}

    @derived_object
    class Builder(builder.PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Any) -> Any:
            paths = []
            for one in build_inputs:
                task = owners[str(one.mod["main"].attrs[_OWNER])]
                own = folder / f"built{len(waiting)}"
                own.mkdir()
                path = str(own / "module")
                waiting[path] = (task, candidate_of(one.mod))
                paths.append(path)
            return [builder.BuilderResult(path, None) for path in paths]

    @derived_object
    class Future(runner.PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, seconds: float | None) -> None:
            self.seconds = seconds

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            if self.seconds is None:
                return runner.RunnerResult(None, "it failed")
            return runner.RunnerResult([self.seconds], None)

    @derived_object
    class Runner(runner.PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Any) -> Any:
            asked = [waiting[str(one.artifact_path)] for one in runner_inputs]
            candidates = [candidate for _, candidate in asked]
            # All of one turn are of one task; a turn may be empty.
            measured = measure(asked[0][0], candidates) if asked else ()
            found = {m.candidate.key: m for m in measured}
            return [Future(seconds_of(found[candidate.key])) for candidate in candidates]

    return Builder(), Runner()
