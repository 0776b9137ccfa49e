"""AMX on processors that lack it: its instructions are done one by one when they trap.

Code that the compiler wrote for AMX is then run as it is, many times slower. Where the processor
has AMX nothing is emulated.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from autotune.target import native
from search_spaces.cpu.dot import DOTS
from search_spaces.cpu.tile import FEATURES, has_tiles
from search_spaces.task import Target

SOURCE = Path(__file__).with_name("emulate.c")

REASON = "this CPU has no AVX-512 VNNI and BF16, which code for AMX uses besides"


def runs_here() -> bool:
    """Whether code for a target with AMX runs here, if need be by emulation."""
    target = native(1)
    return target.triple.startswith("x86_64") and all(d.lanes(target) == 16 for d in DOTS.values())


def real() -> bool:
    """Whether this processor has AMX."""
    return all(has_tiles(dot, native(1)) for dot in DOTS.values())


def with_tiles(threads: int = 1) -> Target:
    """This machine with AMX."""
    target = native(threads)
    missing = [f for f in ("+amx-tile", *FEATURES.values()) if f not in target.features]
    return replace(target, features=(*target.features, *missing))


class Counter:
    """How many AMX instructions were emulated so far; ``None`` where the processor has them."""

    def __init__(self, library: ctypes.CDLL | None) -> None:
        self._library = library

    def __call__(self) -> dict[str, int] | None:
        if self._library is None:
            return None
        kinds = ("configurations", "loads", "stores", "products")
        return {kind: self._library.executed(number) for number, kind in enumerate(kinds)}


@contextmanager
def emulated(folder: Path) -> Iterator[Counter]:
    """Emulate AMX, if need be; the library for it is compiled in ``folder``."""
    if real():
        yield Counter(None)
        return
    path = folder / "amx.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-lm"]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(path))
    library.executed.restype = ctypes.c_uint64
    library.emulate(1)
    try:
        yield Counter(library)
    finally:
        library.emulate(0)
