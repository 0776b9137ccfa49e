"""How many inferences a second several callers get, who all call at the same time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from autotune.bench.interleaved import SETTLE, WARM, settle
from autotune.turns import rounds_in_turn

Run = Callable[[], object]


class Callers:
    """Threads that call, each its own instance of an engine: one machine runs one call at a time.

    They live as long as this does, since engines keep a pool of threads for each that calls.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """One caller for each of ``runs``; ``close`` ends them."""
        self._runs = runs
        # One thread each, so that an instance is called by the same thread in every turn.
        self._threads = [ThreadPoolExecutor(1) for _ in runs]

    def turn(self, seconds: float) -> float:
        """Inferences a second that all callers together got in about ``seconds``.

        Every caller makes at least one, and its last one is counted whenever it ends; what is
        added up are the callers' own rates.
        """
        together = threading.Barrier(len(self._runs))
        calls = [
            thread.submit(_called, run, seconds, together)
            for thread, run in zip(self._threads, self._runs, strict=True)
        ]
        return sum(count / taken for count, taken in (call.result() for call in calls))

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown()


def _called(run: Run, seconds: float, together: threading.Barrier) -> tuple[int, float]:
    together.wait()
    begun = time.perf_counter()
    count, taken = 0, 0.0
    while taken < seconds or not count:
        run()
        count += 1
        taken = time.perf_counter() - begun
    return count, taken


@contextlib.contextmanager
def calling(engines: Mapping[str, Sequence[Run]]) -> Iterator[dict[str, Callers]]:
    """Callers of each engine, by name, until the block ends."""
    callers = {name: Callers(runs) for name, runs in engines.items()}
    try:
        yield callers
    finally:
        for each in callers.values():
            each.close()


def rates(
    turns: Mapping[str, Callable[[float], float]],
    *,
    seconds: float = 10.0,
    rounds: int = 20,
    sleep: Callable[[float], None] = settle,
) -> dict[str, list[float]]:
    """Inferences a second by engine and by round, from what a turn of so many seconds gives.

    As for single calls, engines take turns, each turn begins at rest and with calls that do not
    count, and each round begins with another engine.
    """
    names = list(turns)
    each = seconds / rounds / len(names)
    found: dict[str, list[float]] = {name: [] for name in names}
    for order in rounds_in_turn(names, rounds):
        for name in order:
            sleep(SETTLE)
            turns[name](WARM)
            found[name].append(turns[name](each))
    return found
