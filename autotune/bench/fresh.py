"""Figures of engines, each taken in a fresh process: ``python -m autotune.bench.fresh [PEER]``.

One process imports TVM, or what a peer needs, which takes seconds, and is forked for each
measurement. It never runs a model itself, since thread pools do not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autotune.errors import ArtifactError, ModelError, UserError

CALLS = 3
"""Inferences after which memory has reached its peak."""


@dataclass(frozen=True)
class Start:
    """What starting an engine took: seconds, and bytes at the peak.

    ``imported`` is for the engine's packages, ``load`` from then until the model is ready,
    ``first`` the first inference. ``memory`` is what the last two added, and a few more inferences.
    """

    imported: float
    load: float
    first: float
    memory: int


@contextlib.contextmanager
def measuring(threads: int, peer: str = "") -> Iterator[Measuring]:
    """The process that is forked, until the block ends; inferences use ``threads`` threads.

    It runs artifacts, or models by the peer called ``peer``.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Idle threads of numpy's library would be one more thing that spins.
    extra = {"TVM_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "autotune.bench.fresh", peer],
        env={**os.environ, **extra},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Measuring(process, threads, peer)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has forked
        process.communicate()


class Measuring:
    """Asks for measurements; each is made in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], threads: int, peer: str) -> None:
        """Use ``measuring``, which ends the process."""
        self._process = process
        self._threads = threads
        self._peer = peer

    def times(
        self, artifacts: Mapping[str, Path], seconds: float, rounds: int, seed: int
    ) -> tuple[dict[str, list[list[float]]], float]:
        """Seconds of single calls by name and by round, timed in turns on equal inputs.

        And the largest difference of an output between the first two ``artifacts``, over the
        largest magnitude in that output; 0.0 where there is only one. Raises ``ArtifactError``.
        """
        named = {name: str(path) for name, path in artifacts.items()}
        found = self._ask(do="times", artifacts=named, seconds=seconds, rounds=rounds, seed=seed)
        return found["times"], float(found["difference"])

    def peak(self, artifact: Path) -> float:
        """Bytes that loading ``artifact`` and calling it add to a process at their peak.

        Raises ``ArtifactError``.
        """
        return float(self._ask(do="peak", artifacts={"": str(artifact)}, seed=0)["bytes"])

    def start(self, source: Path, inputs: Path, names: Sequence[str]) -> Start:
        """What it takes to load ``source`` and to run it.

        ``inputs`` is an .npz file of arrays in the order of ``names``. Raises a ``UserError``.
        """
        at = {"": str(source)}
        found = self._ask(do="start", artifacts=at, inputs=str(inputs), names=list(names))
        return Start(**found)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request | {"threads": self._threads}) + "\n")
            self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"ended": "before it answered"}')
        if "refused" in answer:
            raise ArtifactError(answer["refused"])
        if "ended" in answer:
            names = " and ".join(request["artifacts"].values())
            if self._peer:
                raise ModelError(
                    f"the process that ran {names} by {self._peer} ended ({answer['ended']}): "
                    "leave it out of --against"
                )
            raise ArtifactError(
                f"the process that ran {names} ended ({answer['ended']}): compile the artifact "
                "again, or try it with autotune run"
            )
        return dict(answer)


def _times(request: Mapping[str, Any]) -> dict[str, Any]:
    from autotune.bench.difference import difference
    from autotune.bench.interleaved import interleave

    models, inputs = _loaded(request)
    outputs = [model(inputs) for model in models.values()]
    runs = {name: (lambda model=model: model(inputs)) for name, model in models.items()}
    # All use the one pool of this process, so that no spinning thread of another is in the way.
    times = interleave(
        runs, seconds=request["seconds"], rounds=request["rounds"], sleep=lambda _: None
    )
    apart = difference(outputs[1], outputs[0]).relative if len(outputs) > 1 else 0.0
    return {"times": times, "difference": apart}


def _peak(request: Mapping[str, Any]) -> dict[str, Any]:
    before = _memory("VmRSS")  # the peak of a forked process begins here, too
    models, inputs = _loaded(request)
    for model in models.values():
        for _ in range(CALLS):
            model(inputs)
    return {"bytes": _memory("VmHWM") - before}


def _start(request: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    from autotune.bench.peers import start

    with np.load(request["inputs"]) as held:
        inputs = dict(zip(request["names"], (held[key] for key in held.files), strict=True))
    with tempfile.TemporaryDirectory(prefix="autotune-") as scratch:
        # What torch.compile keeps of earlier processes would be no part of a start from nothing.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        before = _memory("VmRSS")
        begun = time.perf_counter()
        run = start(request["peer"], Path(request["artifacts"][""]), inputs, request["threads"]).run
        ready = time.perf_counter()
        run()
        first = time.perf_counter() - ready
        for _ in range(CALLS - 1):
            run()
        peak = _memory("VmHWM") - before
    taken = {"load": ready - begun, "first": first, "memory": peak}
    return {"imported": request["imported"], **taken}


def _loaded(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The artifacts, loaded in the order in which they are named, and inputs for all of them."""
    from autotune.bench.compare import specs_of
    from autotune.frontends.sampling import random_inputs
    from autotune.runtime import load

    models = {name: load(at, request["threads"]) for name, at in request["artifacts"].items()}
    first = next(iter(models.values()))
    return models, random_inputs(specs_of(first), request["seed"])


def _memory(name: str) -> int:
    """A figure of this process in bytes, as Linux names it."""
    found = re.search(name + r":\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells this of every process"
    return int(found[1]) * 1024


def _answer(request: Mapping[str, Any], pipe: Connection) -> None:
    """In the fork."""
    try:
        pipe.send({"times": _times, "peak": _peak, "start": _start}[request["do"]](request))
    except UserError as error:
        pipe.send({"refused": str(error)})


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _imported(peer: str) -> float:
    """Import what the forked processes need; seconds that the engine's own packages took."""
    from autotune.lean import without_torch

    without_torch()

    import autotune.bench.compare
    import autotune.bench.interleaved
    import autotune.frontends.sampling
    import autotune.runtime  # noqa: F401
    from autotune.bench.peers import peer_named

    begun = time.perf_counter()
    importlib.import_module(peer_named(peer).module if peer else "tvm")
    return time.perf_counter() - begun


def main(peer: str = "", lines: Sequence[str] | Any = sys.stdin) -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    told = {"peer": peer, "imported": _imported(peer)}
    fork = multiprocessing.get_context("fork")
    for line in lines:
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=_answer, args=(json.loads(line) | told, theirs))
        process.start()
        theirs.close()
        try:
            answer = ours.recv()
        except EOFError:
            process.join()
            answer = {"ended": _ended(process.exitcode)}
        process.join()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
