"""A compiled program in this process: TVM's virtual machine, and the threads that it runs in."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def own_cores() -> Iterator[None]:
    """Where TVM makes its pool of threads: nobody leaves the cores that this thread may run on.

    TVM binds the pool, and the thread that makes it, to the first cores of the machine. A process
    that was restricted (``taskset``) would land beside others there; and a thread that was bound
    keeps that for all it does afterwards.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) < (os.cpu_count() or 1):
        os.environ.setdefault("TVM_BIND_THREADS", "0")
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Machine:
    """A compiled program in this process, and the thread pool it runs in.

    Called with tensors in the order of the program's inputs: TVM's, or torch's, which are then what
    it returns. Safe to call from several threads; the calls are made one after another.
    """

    def __init__(self, program: Any, threads: int, weights: Sequence[Any] = ()) -> None:
        """``program`` is a loaded library, or an executable that was built in this process.

        ``weights`` are the tensors that it takes after its inputs.
        """
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self.threads = threads
        self._configure = tvm.get_global_func("runtime.config_threadpool")
        self._pool_size = tvm.get_global_func("runtime.NumThreads")
        self._machine = VirtualMachine(program, tvm.cpu())
        self._main = self._machine["main"]
        self._weights = tuple(weights)
        self._lock = threading.Lock()
        self._pools = threading.local()

    def __call__(self, *tensors: Any) -> Any:
        """What the program returns for ``tensors``."""
        with self._lock:
            if not getattr(self._pools, "ready", False):
                self._size_pool()
            return self._main(*tensors, *self._weights)

    def observe(self, observer: Callable[..., int]) -> None:
        """Have ``observer`` called before and after each call that the program makes.

        It gets the function, its name, whether it is about to run, its result and its arguments,
        and returns 0. There is no way back: load the program again.
        """
        self._machine.set_instrument(observer)

    def _size_pool(self) -> None:
        """Make TVM's thread pool, which each calling thread has for itself, of our size.

        It takes its size from the environment when it is made and can only shrink later. The
        variable keeps the largest number so far: TVM asks it again at each parallel loop, and where
        it finds none it takes half of the cores; where that is one, it does without the pool.
        """
        before = os.environ.get("TVM_NUM_THREADS", "")
        os.environ["TVM_NUM_THREADS"] = str(self.threads)
        with own_cores():
            self._configure(1, self.threads)
        if before.isdigit() and int(before) > self.threads:
            os.environ["TVM_NUM_THREADS"] = before
        self._pools.ready = True
        actual = int(self._pool_size())
        if actual < self.threads:
            warnings.warn(
                f"TVM's thread pool was made with {actual} threads before this model was run, "
                f"which is meant for {self.threads}: set TVM_NUM_THREADS={self.threads} before "
                "Python starts",
                RuntimeWarning,
                stacklevel=3,
            )
