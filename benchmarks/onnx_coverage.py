"""How much of ONNX compiles, and whether it is right: ``python -m benchmarks.onnx_coverage``.

The ONNX project's own backend tests (``benchmarks.onnx_cases`` says which, and in what form) are
imported, compared with the reference, fused, compiled with default schedules and run, as ``autotune
compile`` does it less the writing of an artifact, each in a process of its own with limits of time
and memory. What comes out is compared with what the test expects. A case is

- right: the outputs are those that the test expects,
- refused: a sentence says why the model cannot be compiled,
- wrong: something was compiled that computes something else,
- failed: an error that is no sentence for a user, and so a bug of ours,
- crashed or late: the process died, or took longer than the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError, UserError
from benchmarks.onnx_cases import FOLDERS, Case, model_cases, named, node_cases, teller

if TYPE_CHECKING:
    from autotune.steps import Prepared

RIGHT, REFUSED, WRONG, FAILED, CRASHED, LATE = OUTCOMES = (
    "right", "refused", "wrong", "failed", "crashed", "late"
)  # fmt: skip
BUGS = (WRONG, FAILED, CRASHED, LATE)
MEMORY = 12 << 30
"""Bytes of address space of each process."""

SUBSET = (
    "attention", "bitshift", "center_crop_pad", "clip", "conv", "convtranspose", "cumprod",
    "dequantizelinear", "dft", "dynamicquantizelinear", "einsum", "if_", "layernormalization",
    "linear_attention", "loop", "lstm", "maxpool", "nonmaxsuppression", "pad", "pow",
    "qlinearconv", "resize", "reversesequence", "rnn", "rotaryembedding", "scan",
    "scatterelements", "stft", "tensorscatter", "topk", "unique",
)  # fmt: skip
"""Modules of node tests that the subset is drawn from."""

EACH = 1
"""Cases of each module in the subset: the last of each, which are seldom the plainest."""


@dataclass(frozen=True)
class Result:
    """What became of a case. ``stage`` is the import stage it needed, ``reason`` why it failed."""

    name: str
    operator: str
    outcome: str
    stage: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Running:
    """A case in its process."""

    case: Any
    process: Any
    pipe: Connection
    begun: float = field(default_factory=time.monotonic)


def examine(case: Case, folder: Path) -> tuple[str, str, str]:
    """Outcome, stage and reason of ``case``, in this process."""
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    stage = ""
    try:
        ready = ready_model(path, None)
        imported, stage = ready.imported, ready.imported.stage
        run = compared(ready)
    except UserError as error:
        return REFUSED, stage, str(error).replace(str(path), "the model")
    actual = run({spec.name: case.inputs[spec.name] for spec in imported.inputs})
    for spec in imported.outputs:
        reason = difference(case.outputs[spec.name], actual[spec.name], case.rtol)
        if reason:
            return WRONG, stage, f"{spec.name}: {reason}"
    return RIGHT, stage, ""


def ready_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None) -> Prepared:
    """The model in the file, compiled with default schedules for one thread of this machine."""
    from autotune.steps import prepared, resolved_target

    return prepared(path, shapes, resolved_target("native", 1), None, schedules=lambda _: {})


def compared(ready: Prepared) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What runs a model, compared on more inputs. Raises ``ModelError`` where it is wrong."""
    from autotune.artifact.build import runnable
    from autotune.frontends import verify_import

    run = runnable(ready.fused) if ready.compiled is None else ready.compiled.runnable()
    verify_import(ready.imported, lambda _: run, seed=1, samples=ready.samples)
    return run


def difference(expected: Any, actual: Any, rtol: float) -> str:
    """How ``actual`` is not ``expected``, empty if it is.

    Within ``rtol`` of each value (the test's own) and 1e-5 of the largest; 16-bit floats within
    1e-2. Integers and booleans are equal.
    """
    import numpy as np

    from autotune.dtypes import is_float

    if expected.shape != actual.shape:
        return f"shape {actual.shape}, not {expected.shape}"
    if expected.dtype != actual.dtype:
        return f"type {actual.dtype}, not {expected.dtype}"
    if not is_float(expected.dtype):
        unequal = int(np.sum(expected != actual))
        return f"{unequal} of {expected.size} elements differ" if unequal else ""
    wide, mine = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.abs(wide[np.isfinite(wide)])
    rtol = max(rtol, 1e-2) if expected.dtype.itemsize == 2 else rtol
    near = np.isclose(mine, wide, rtol=rtol, atol=1e-5 * finite.max(initial=1e-2), equal_nan=True)
    if near.all():
        return ""
    return f"{int(np.sum(~near))} of {near.size} elements differ"


def examine_all(
    cases: Iterable[Any],
    jobs: int,
    limit: float,
    tell: Callable[[Result], None],
    how: Callable[[Any, Path], tuple[str, str, str]] = examine,
) -> list[Result]:
    """Every case in a process of its own, ``jobs`` at once, of at most ``limit`` seconds each.

    ``how`` examines one, in a folder that is its own; a case has a ``name`` and an ``operator``.
    """
    context = multiprocessing.get_context("fork")
    waiting, running, done = iter(cases), list[Running](), list[Result]()
    while True:
        while len(running) < jobs and (case := next(waiting, None)) is not None:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(case, theirs, how))
            process.start()
            theirs.close()
            running.append(Running(case, process, ours))
        if not running:
            return done
        wait([job.pipe for job in running], timeout=0.5)
        for job in list(running):
            result = _result(job, limit)
            if result is not None:
                running.remove(job)
                done.append(result)
                tell(result)


def _result(job: Running, limit: float) -> Result | None:
    """What came out of ``job``; None while it runs."""
    seconds = time.monotonic() - job.begun
    answer: tuple[str, str, str] | None = None
    if job.pipe.poll():
        with contextlib.suppress(EOFError):
            answer = job.pipe.recv()
    elif job.process.is_alive():
        if seconds < limit:
            return None
        job.process.kill()
        answer = (LATE, "", f"more than {limit:.0f} s")
    job.process.join()
    if answer is None:
        answer = (CRASHED, "", f"exit {job.process.exitcode}")
    outcome, stage, reason = answer
    return Result(job.case.name, job.case.operator, outcome, stage, reason, round(seconds, 2))


def _child(case: Any, pipe: Connection, how: Callable[[Any, Path], tuple[str, str, str]]) -> None:
    """Examine ``case``, quietly, and send what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            answer = how(case, Path(folder))
        except Exception:  # a bug of ours, which is what is looked for
            answer = (FAILED, "", "".join(traceback.format_exc().splitlines(True)[-12:]))
        pipe.send(answer)
    pipe.close()
    os._exit(0)


def subset() -> list[Case]:
    """The last ``EACH`` cases of every module of ``SUBSET``."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in node_cases(SUBSET):
        found[case.operator].append(case)
    return [case for cases in found.values() for case in cases[-EACH:]]


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts of all, by operator and by the stage of import that was needed."""

    def counts(key: Callable[[Result], str]) -> dict[str, dict[str, int]]:
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for result in results:
            table[key(result)][result.outcome] += 1
        return {name: dict(table[name]) for name in sorted(table)}

    return {
        "cases": len(results),
        "outcomes": dict(Counter(result.outcome for result in results)),
        "stages": counts(lambda result: result.stage),
        "operators": counts(lambda result: result.operator),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where nothing is wrong and nothing crashed, 1 elsewhere, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="onnx_coverage", description=__doc__)
    parser.add_argument("--kinds", default="node", help=f"by commas: node, {', '.join(FOLDERS)}")
    parser.add_argument("--only", default="", help="cases whose name holds one of these, by commas")
    parser.add_argument("--subset", action="store_true", help="a spread of a few dozen node cases")
    parser.add_argument("--as-given", action="store_true", help="leave every input an input")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for each case")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except UserError as error:
        print(f"onnx_coverage: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from benchmarks.latency import write_json
    from benchmarks.machine import describe, settings_of
    from benchmarks.options import several

    if options.jobs < 1:
        raise InputError("--jobs must be 1 or more")
    # One thread each, also in what is forked: numpy's own library and TVM's pool read it once.
    os.environ.update(TVM_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    kinds = several(options.kinds, ("node", *FOLDERS), "kind")
    if options.subset:
        cases = subset()
    else:
        cases = list(node_cases(bind=not options.as_given)) if "node" in kinds else []
        cases += list(model_cases([kind for kind in kinds if kind != "node"]))
    cases = named(cases, options.only)
    load_all()
    results = examine_all(cases, options.jobs, options.limit, teller(len(cases), RIGHT))
    found = summary(results)
    print(", ".join(f"{found['outcomes'].get(outcome, 0)} {outcome}" for outcome in OUTCOMES))
    if options.json is not None:
        report = {**describe(), "settings": settings_of(options, "json"), **found}
        write_json(options.json, {**report, "results": [asdict(result) for result in results]})
    return 1 if any(found["outcomes"].get(outcome) for outcome in BUGS) else 0


def load_all() -> None:
    """Import what every case needs, once: each process is a copy of this one."""
    from search_spaces.light import light_import

    light_import()
    import onnxruntime  # noqa: F401
    import onnxslim  # noqa: F401
    import tvm.relax.frontend.onnx  # noqa: F401

    from autotune.artifact import build  # noqa: F401
    from autotune.graph import pipeline  # noqa: F401
    from search_spaces.registry import all_spaces

    all_spaces()


if __name__ == "__main__":
    sys.exit(main())
