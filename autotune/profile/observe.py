"""What a program calls while it runs, and when: each call of each kernel, inside the whole model.

A kernel by itself has its inputs in the cache and its threads at hand; here it comes after the one
before it, as in production. TVM's virtual machine calls an observer around each call. That must be
quick, and leave the caches alone, or kernels of some microseconds take longer than they do: so it
is machine code, which writes down the time and which call it was, and nothing else.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.errors import ArtifactError
from search_spaces.task import Target

IDLE = "vm.builtin.null_value"
"""What a program calls often and does nothing: its time is the observer's own."""


_PACKED = "_prepacked"
"""What TVM adds to the name of a function whose weights it packed."""

PACKED = 1
"""What TVM's attribute "calling_conv" says of functions that take any arguments."""

EVENTS = 1 << 20
"""Of one inference at most: two for each call."""

# In TVM's calling convention arguments are 16 bytes each, of which the last eight are the value.
# The second is the name of what is called, as characters; the third whether it is about to be.
_NOTE = """
declare i32 @clock_gettime(i32, ptr)
define i32 @autotune_note(ptr %arguments) alwaysinline {{
entry:
  %time = alloca [2 x i64]
  %failed = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %rest
  %events = inttoptr i64 {address} to ptr
  %seen = load i64, ptr %events
  %more = add i64 %seen, 1
  store i64 %more, ptr %events
  %fits = icmp ult i64 %seen, {events}
  br i1 %fits, label %keep, label %end
keep:
  %name.at = getelementptr i8, ptr %arguments, i64 24
  %name = load i64, ptr %name.at
  %before.at = getelementptr i8, ptr %arguments, i64 40
  %before = load i64, ptr %before.at
  %row = mul i64 %more, 3
  %first = getelementptr i64, ptr %events, i64 %row
  store i64 %name, ptr %first
  %second = getelementptr i64, ptr %first, i64 1
  store i64 %before, ptr %second
  %third = getelementptr i64, ptr %first, i64 2
  store i64 %now, ptr %third
  br label %end
end:
  ret i32 0
}}
"""


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
    """Collects the calls of one inference after the other, of programs of this process.

    ``function`` is what a program calls around each call. What was written down is read by
    ``taken`` alone, after several inferences: reading it between them would push their weights out
    of the caches, and small kernels were seen to take an eighth longer.
    """

    def __init__(self, target: Target) -> None:
        """Compile it for ``target``, which is this machine. Nothing is kept until ``inference``."""
        # The first row holds the number of events, the others name, whether before, nanoseconds.
        self._events = np.zeros((1 + EVENTS, 3), np.int64)
        code = _NOTE.format(address=self._events.ctypes.data, events=EVENTS)
        self.function = _compiled(code, target)
        self._names: dict[int, str] = {}
        self._kept: list[tuple[int, int, np.ndarray[Any, Any]]] = []

    def inference(self, run: Callable[[], object]) -> float:
        """Seconds of ``run``, observed; what it calls is kept for ``taken``.

        Raises ``ArtifactError`` where that is more than can be written down.
        """
        self._events[0, 0] = 0
        begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        run()
        end = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        count = int(self._events[0, 0])
        if count > EVENTS:
            raise ArtifactError(f"an inference makes more calls than the {EVENTS // 2} that fit")
        self._kept.append((begin, end, self._events[1 : 1 + count].copy()))
        return (end - begin) * 1e-9

    def taken(self) -> list[tuple[float, list[Called]]]:
        """Of each inference since the last time: seconds, and its calls in order of their ends."""
        found = []
        for begin, end, rows in self._kept:
            events = ((self._name(n), bool(b & 1), now - begin) for n, b, now in rows.tolist())
            found.append(((end - begin) * 1e-9, calls_of(events)))
        self._kept.clear()
        return found

    def _name(self, address: int) -> str:
        """The text at ``address``, which a program keeps as long as it is loaded."""
        if address not in self._names:
            self._names[address] = ctypes.string_at(address).decode()
        return self._names[address]


def _compiled(code: str, target: Target) -> Any:
    """A function of TVM's that hands its arguments to that of ``code``, in LLVM's language."""
    import tvm
    from tvm import tirx

    from autotune.compiler import compile_functions

    # Lowered already: it is to have TVM's calling convention, whatever its arguments are.
    words = ("handle", "handle", "int32", "handle")
    names = ("this", "arguments", "count", "result")
    given = [tirx.Var(name, kind) for name, kind in zip(names, words, strict=True)]
    note = tirx.Evaluate(tirx.call_extern("int32", "autotune_note", given[1]))
    both = tirx.SeqStmt([note, tirx.Return(tirx.const(0, "int32"))])
    zero, text = tirx.const(0, "int32"), tvm.ir.StringImm(code)
    body = tirx.AttrStmt(zero, "pragma_import_llvm", text, both)
    made = tirx.PrimFunc(given, body, tvm.ir.PrimType("int32"))
    made = made.with_attr("global_symbol", "__tvm_ffi_autotune_observe")
    module = tvm.IRModule({"autotune_observe": made.with_attr("calling_conv", PACKED)})
    return compile_functions(module, target)["autotune_observe"]


def calls_of(events: Iterable[tuple[str, bool, int]]) -> list[Called]:
    """Calls in order of their ends, from their names, whether each began, and nanoseconds."""
    begun: list[int] = []
    found = []
    for name, before, now in events:
        if before:
            begun.append(now)
        else:
            begin = begun.pop()
            found.append(Called(name, begin * 1e-9, (now - begin) * 1e-9))
    return found


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
