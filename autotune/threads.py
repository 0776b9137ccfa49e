"""TVM's thread pool, made to use exactly the threads that a target says."""

from __future__ import annotations

import os
import sys

from autotune.errors import TargetError
from autotune.machine import own_cores

VARIABLE = "TVM_NUM_THREADS"
BIG_CORES = 1
"""The affinity mode that TVM's pool starts in: all cores, where none is small."""


def set_threads(threads: int) -> None:
    """Let every parallel kernel of this process, and of its children, use ``threads`` threads.

    Call it before TVM runs its first parallel kernel: the pool is made then, at the size of that
    moment, and can only shrink later. Raises ``TargetError`` where it cannot have that size.
    """
    if threads < 1:
        raise TargetError(f"the number of threads must be 1 or more, not {threads}")
    os.environ[VARIABLE] = str(threads)
    with own_cores():
        if "tvm" not in sys.modules:
            return
        from tvm_ffi import get_global_func

        get_global_func("runtime.config_threadpool")(BIG_CORES, threads)
    actual = int(get_global_func("runtime.NumThreads")())
    if actual != threads:
        raise TargetError(
            f"TVM's thread pool already runs with {actual} threads and cannot be made {threads}: "
            f"set {VARIABLE}={threads} before Python starts"
        )
