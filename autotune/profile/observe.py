"""What a program calls while it runs, and when: each call of each kernel, inside the whole model.

A kernel by itself has its inputs in the cache and its threads at hand; here it comes after the one
before it, as in production. Observing costs some microseconds a call, which is measured on calls
that do nothing, and taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IDLE = "vm.builtin.null_value"
"""What a program calls often and does nothing: its time is the observer's own."""


_PACKED = "_prepacked"
"""What TVM adds to the name of a function whose weights it packed."""


def function_of(name: str) -> str:
    """What the function that is called ``name`` in a library was called in the model."""
    return name.removesuffix(_PACKED)


@dataclass(frozen=True)
class Called:
    """One call: when it began and how long it took, in seconds, the observer's time included."""

    name: str
    begin: float
    seconds: float


class Observer:
    """Collects the calls of one inference after the other."""

    def __init__(self) -> None:
        """Nothing is kept until ``inference`` is used."""
        self._calls: list[Called] = []
        self._begun: list[float] = []

    def __call__(self, _: Any, name: str, before: bool, *rest: Any) -> int:
        """What TVM's virtual machine calls around each call."""
        now = time.perf_counter()
        if before:
            self._begun.append(time.perf_counter())
        else:
            begin = self._begun.pop()
            self._calls.append(Called(name, begin, now - begin))
        return 0

    def inference(self, run: Callable[[], object]) -> tuple[float, list[Called]]:
        """Seconds of ``run``, observed, and what it called, in order."""
        self._calls, self._begun = [], []
        begin = time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
        return seconds, [Called(c.name, c.begin - begin, c.seconds) for c in self._calls]


@dataclass(frozen=True)
class Timeline:
    """Several inferences of one program, which call the same functions in the same order.

    ``seconds[i, k]`` is call ``k`` in inference ``i``, ``begins`` when it began; ``walls`` are the
    inferences as a whole. ``cost`` is what observing adds to a call; it is taken off already.
    """

    names: tuple[str, ...]
    begins: np.ndarray[Any, Any]
    seconds: np.ndarray[Any, Any]
    walls: np.ndarray[Any, Any]
    cost: float

    @property
    def typical(self) -> int:
        """Which inference took the median time."""
        return int(np.argsort(self.walls)[(len(self.walls) - 1) // 2])


def timeline(inferences: Sequence[tuple[float, Sequence[Called]]]) -> Timeline:
    """Line up ``inferences``; those that went another way than most (a branch) are left out."""
    ways = [tuple(call.name for call in calls) for _, calls in inferences]
    names = max(set(ways), key=ways.count)
    alike = [found for found, way in zip(inferences, ways, strict=True) if way == names]
    seconds = np.array([[call.seconds for call in calls] for _, calls in alike])
    begins = np.array([[call.begin for call in calls] for _, calls in alike])
    idle = [k for k, name in enumerate(names) if name == IDLE]
    cost = float(np.median(seconds[:, idle])) if idle else 0.0
    walls = np.array([wall for wall, _ in alike])
    return Timeline(names, begins, np.maximum(seconds - cost, 0.0), walls, cost)
