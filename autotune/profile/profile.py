"""The kernels of an artifact, each with its time and its distance to the roof."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autotune.errors import ArtifactError, TargetError
from autotune.profile.observe import Observer, Timeline, function_of, timeline
from autotune.profile.origins import Operators, first_of, operators_of
from autotune.profile.roofline import Roof
from autotune.turns import rounds_in_turn

if TYPE_CHECKING:
    from autotune.runtime import Model
    from search_spaces.task import Target

ROUNDS = 20
_UNSTEADY = 0.2
"""Spread of the wall time, quartile to quartile, over its median."""

_UNNOTICED = 1e-4
"""Seconds that an undisturbed call may take beyond its parts, however small the model is."""

_ABSURD = 1.5
"""Times the roof, beyond which a kernel cannot have done all that is counted for it."""


@dataclass(frozen=True)
class KernelProfile:
    """One task of the model, as the model calls it.

    ``seconds`` is the median of all its calls in one inference together, ``low`` and ``high`` the
    quartiles; ``share`` is the part of the wall time. ``flops`` and ``bytes`` are of all calls
    together (bytes: every argument once), ``roof`` the share of what the machine can do with them
    (None where that says nothing; above 1 where an algorithm, such as Winograd's, does with fewer
    operations than the definition counts). ``verdict`` is what bounds it: "compute", "memory",
    "overhead" (its work is less than that of starting threads), "partial" (it reads part of its
    arguments, so that their bytes say nothing), "unmeasured" (no peak is known of ``dtype``, that
    of what it multiplies), or "unknown". ``schedule`` is the search space, ``origin`` "record",
    "default" or "unscheduled"; ``arguments`` are tensors, the result last. ``operators`` are those
    of the original model that each call is for, in turn; empty where they are not known.
    """

    name: str
    arguments: tuple[str, ...]
    functions: tuple[str, ...]
    workload: str
    calls: int
    seconds: float
    low: float
    high: float
    share: float
    flops: float
    bytes: int
    roof: float | None
    verdict: str
    schedule: str
    origin: str
    operators: tuple[Operators, ...] = ()
    dtype: str = "float32"

    @property
    def label(self) -> str:
        """What it computes and the shape of its result."""
        return " ".join((self.name, *(text.split()[0] for text in self.arguments[-1:])))

    @property
    def source(self) -> str:
        """The operators of its first call in a line, and how many calls more there are."""
        return first_of(self.operators)

    @property
    def flop_rate(self) -> float:
        """FLOP/s; 0 where the time was too short to be told from the observer's."""
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def byte_rate(self) -> float:
        """Bytes/s, likewise."""
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def spread(self) -> float:
        """From quartile to quartile, as a share of the median."""
        return (self.high - self.low) / self.seconds if self.seconds else 0.0

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Profile:
    """An artifact's kernels, the slowest first, in seconds of one inference.

    ``wall`` is the median of inferences that nobody observed, timed in turns with the observed
    ones; of it ``kernels`` are those listed, ``runtime`` what the virtual machine calls besides
    (allocation, checks of shapes), and ``rest`` what is left: below zero where the kernels took
    longer observed than not. ``cost`` is what observing added to each call, taken off everywhere.
    ``operators`` are those that each call of the timeline is for.
    """

    model: str
    cpu: str
    threads: int
    wall: float
    low: float
    high: float
    kernels: float
    runtime: float
    rest: float
    cost: float
    roof: Roof
    entries: tuple[KernelProfile, ...]
    timeline: Timeline
    operators: tuple[Operators, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether the machine was too busy for the figures to mean much."""
        # One that never rests spreads nothing, but holds up each inference and few of its kernels.
        unsteady = _UNSTEADY * self.wall
        return self.high - self.low > unsteady or self.rest > max(unsteady, _UNNOTICED)


def profile(
    artifact: str | Path,
    threads: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    seconds: float = 10.0,
    seed: int = 0,
    remeasure: bool = False,
) -> Profile:
    """Profile the artifact directory ``artifact`` on this machine for about ``seconds``.

    Random ``inputs`` from ``seed`` are used where none are given, and the artifact's own number of
    ``threads``. The roof of this machine is measured the first time, which takes some seconds, and
    kept (``remeasure`` measures it again). Raises a ``UserError``.
    """
    from autotune.bench.compare import specs_of
    from autotune.frontends.sampling import random_inputs
    from autotune.profile.store import roof_of
    from autotune.runtime import load
    from autotune.target import check_measurable, from_fields

    plain, observed = load(artifact, threads), load(artifact, threads)
    tasks = plain.manifest["tasks"]
    if any("functions" not in task for task in tasks):
        raise ArtifactError(
            f"{artifact} was made before artifacts said which kernel is which: compile it again"
        )
    target = from_fields(plain.manifest["target"], f"the target of {artifact}")
    target = replace(target, threads=plain.threads)
    given = dict(inputs) if inputs is not None else random_inputs(specs_of(plain), seed)
    plain(given)  # says what is wrong with the inputs before anything else does
    try:
        check_measurable(target)
    except TargetError as error:
        raise TargetError(f"{artifact} cannot be profiled here: {error}") from error
    roof = roof_of(target, remeasure)
    walls, seen = _run(plain, observed, target, given, seconds)
    return _summary(plain, walls, seen, roof)


def _run(
    plain: Model, observed: Model, target: Target, inputs: Mapping[str, Any], seconds: float
) -> tuple[np.ndarray[Any, Any], Timeline]:
    """Seconds of inferences that nobody watches, and the calls of others, timed in turns."""
    observer = Observer(target)
    observed.observe(observer.function)
    tensors = plain.tensors(inputs)
    walls: list[float] = []
    found: list[Any] = []

    def unwatched() -> None:
        begin = time.perf_counter()
        plain.execute(tensors)
        walls.append(time.perf_counter() - begin)

    def watched() -> None:
        observer.inference(lambda: observed.execute(tensors))

    for run in (unwatched, watched, unwatched, watched):
        run()  # threads, caches and lazy parts
    pace = walls[-1] + observer.taken()[-1][0]
    walls.clear()
    count = max(2, min(200, round(seconds / ROUNDS / pace)))
    runs: dict[str, Callable[[], None]] = {"unwatched": unwatched, "watched": watched}
    for order in rounds_in_turn(list(runs), ROUNDS):
        for name in order:
            for _ in range(count):
                runs[name]()
            found += observer.taken()
    return np.array(walls), timeline(found)


def _summary(model: Model, walls: np.ndarray[Any, Any], seen: Timeline, roof: Roof) -> Profile:
    tasks = model.manifest["tasks"]
    operators = operators_of(seen.names, model.manifest)
    owner = {name: task for task in tasks for name in task["functions"]}
    low, wall, high = (float(q) for q in np.quantile(walls, [0.25, 0.5, 0.75]))
    columns: dict[str, list[int]] = {}
    runtime: list[int] = []
    for position, name in enumerate(seen.names):
        plain = function_of(name)
        if name.startswith("vm.builtin."):
            runtime.append(position)
        else:
            columns.setdefault(owner.get(plain, {}).get("workload", plain), []).append(position)
    by_key = {task["workload"]: task for task in tasks}
    entries = [
        _entry(by_key.get(key), key, seen.seconds[:, at], wall, roof, [operators[k] for k in at])
        for key, at in columns.items()
    ]
    entries.sort(key=lambda entry: -entry.seconds)
    kernels = sum(entry.seconds for entry in entries)
    other = float(np.median(seen.seconds[:, runtime].sum(axis=1))) if runtime else 0.0
    manifest = model.manifest
    return Profile(
        model=manifest["model"]["name"],
        cpu=manifest["target"]["model"],
        threads=model.threads,
        wall=wall,
        low=low,
        high=high,
        kernels=kernels,
        runtime=other,
        rest=wall - kernels - other,
        cost=seen.cost,
        roof=roof,
        entries=tuple(entries),
        timeline=seen,
        operators=operators,
    )


def _entry(
    task: Mapping[str, Any] | None,
    key: str,
    times: np.ndarray[Any, Any],
    wall: float,
    roof: Roof,
    operators: Sequence[Operators],
) -> KernelProfile:
    """``times[i, k]``: call ``k`` of this task in inference ``i``. No task: nothing is known."""
    calls = times.shape[1]
    low, middle, high = (float(q) for q in np.quantile(times.sum(axis=1), [0.25, 0.5, 0.75]))
    known = task or {}
    flops, size = float(known.get("flops", 0.0)), int(known.get("bytes", 0))
    # Artifacts did not always say what they compute in.
    dtype = str(known.get("arithmetic") or "float32")
    share, verdict = judged(flops, size, middle / calls, roof, dtype)
    return KernelProfile(
        name=str(known.get("name", key)),
        arguments=tuple(known.get("arguments", ())),
        functions=tuple(known.get("functions", (key,))),
        workload=key if task else "",
        calls=calls,
        seconds=middle,
        low=low,
        high=high,
        share=middle / wall,
        flops=flops * calls,
        bytes=size * calls,
        roof=share,
        verdict=verdict,
        schedule=str(known.get("space", "")),
        origin=str(known.get("source", "unscheduled")),
        operators=tuple(operators) if all(operators) else (),
        dtype=dtype,
    )


def judged(
    flops: float, size: int, seconds: float, roof: Roof, dtype: str = "float32"
) -> tuple[float | None, str]:
    """The share of the roof, and the verdict, of one call; see ``KernelProfile``."""
    if not size:
        return None, "unknown"
    if flops and dtype not in roof.peaks:
        return None, "unmeasured"
    bound = roof.bound(flops, size, dtype)
    share = bound.seconds / seconds if seconds else 0.0
    if share > _ABSURD and bound.seconds > roof.start:
        return (share, "compute") if bound.by == "compute" else (None, "partial")
    return min(share, 1.0), "overhead" if bound.seconds < roof.start else bound.by
