"""Time several engines in turn, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from autotune.turns import rounds_in_turn

SETTLE = 0.004
"""Seconds between two engines at least."""

LONGEST_SETTLE = 0.5
"""Seconds after which an engine that never rests is not waited for any longer."""

WARM = 0.02
"""Seconds that an engine runs unmeasured when its turn begins."""


def settle(least: float) -> None:
    """Wait until nothing of this process computes any more.

    Thread pools spin after their last work, waiting for more: ONNX Runtime's was seen to for 80 ms,
    TVM's for 150 ms. An engine that is timed meanwhile shares its cores with the one before it. All
    keep the spinning that is their default, as in production, but only through their own turn.
    """
    waited, step, idle = 0.0, max(least, 0.002), 0
    # Idle once proves little: where cores are scarce a spinning thread may just not have had one.
    while waited < LONGEST_SETTLE and idle < 3:
        used = time.process_time()
        time.sleep(step)
        waited += step
        idle = idle + 1 if time.process_time() - used < 0.25 * step else 0


def interleave(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 10.0,
    rounds: int = 20,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = settle,
) -> dict[str, list[list[float]]]:
    """Seconds of single inferences, by engine and by round.

    ``seconds`` is about how long all of it takes, spread over ``rounds`` in which every engine has
    its turn; each round begins with another one. Before a turn ``sleep`` lets the engine before it
    come to rest. In its turn an engine first runs unmeasured, to have its threads and caches back,
    and then at least three times.
    """
    names = list(runs)
    pace = {}
    for name in names:
        runs[name]()
        pace[name] = _timed(runs[name], clock)
    turn = seconds / rounds / len(names)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for order in rounds_in_turn(names, rounds):
        for name in order:
            sleep(SETTLE)
            warm = clock() + WARM
            runs[name]()
            while clock() < warm:
                runs[name]()
            count = max(3, min(1000, round(turn / max(pace[name], 1e-9)) - 1))
            found[name].append(_turn(runs[name], count, turn, clock))
    return found


def _turn(
    run: Callable[[], object], count: int, seconds: float, clock: Callable[[], float]
) -> list[float]:
    """``count`` calls, but fewer (three at least) where they take twice as long as planned.

    The first calls set the pace; on a machine that became busy since, others take many times that.
    """
    until = clock() + 2 * seconds
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < count and clock() < until):
        taken.append(_timed(run, clock))
    return taken


def _timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    run()
    return clock() - begun
