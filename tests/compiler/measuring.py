"""Small tasks made by hand, for the tests of measuring."""

from __future__ import annotations

import platform
from typing import Any

from search_spaces.task import Access, Axis, Block, Target, Task, TensorType, Workload, digest_of


def host(threads: int = 2) -> Target:
    """This machine as LLVM sees any of its kind, so that the tests run everywhere."""
    arch = platform.machine()
    cpu = "haswell" if has_flag("avx2") else ""
    return Target("llvm", f"{arch}-unknown-linux-gnu", cpu, (), "test", threads, threads)


def has_flag(flag: str) -> bool:
    """Whether the kernel reports that the CPU has ``flag``."""
    with open("/proc/cpuinfo") as info:
        return flag in info.read().split()


def task_of(
    name: str,
    tensors: list[Any],
    *,
    constants: tuple[int, ...] = (),
    blocks: tuple[Block, ...] = (),
) -> Task:
    """A task from TE tensors, the last of which is the output."""
    import tvm
    from tvm import te

    module = tvm.IRModule({"main": te.create_prim_func(tensors)})
    types = tuple(TensorType(tuple(int(e) for e in t.shape), str(t.dtype)) for t in tensors)
    text = tvm.ir.save_json(module)
    workload = Workload(digest_of([name, str(types)]), name, text, types, 1, constants, blocks)
    return Task(workload, 1, 1.0, sum(t.bytes for t in types))


def matmul(m: int = 64, n: int = 64, k: int = 64) -> Task:
    """C[m, n] = A[m, k] B[k, n], B constant."""
    from tvm import te

    a = te.placeholder((m, k), name="A")
    b = te.placeholder((k, n), name="B")
    r = te.reduce_axis((0, k), name="k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    axes = (Axis(m, False), Axis(n, False), Axis(k, True))
    reads = (Access(0, ((0,), (2,)), True), Access(1, ((2,), (1,)), True))
    block = Block("C", axes, reads, (Access(2, ((0,), (1,)), True),), (("Add", 1), ("Mul", 1)))
    return task_of("matmul", [a, b, c], constants=(1,), blocks=(block,))
