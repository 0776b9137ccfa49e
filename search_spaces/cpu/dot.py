# mypy: disable-error-code="valid-type,index,attr-defined,untyped-decorator"
"""Instructions that add four products of 8-bit numbers to a 32-bit one, in every lane.

vpdpbusd of AVX-512 VNNI and AVX-VNNI: unsigned by signed, without saturation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from search_spaces.task import Target

DEPTH = 4
"""Numbers that are multiplied and added up in each lane."""

LANES = (8, 16)


def lanes_of(target: Target) -> int:
    """Sums that one instruction adds to; 0 where ``target`` has none such."""
    if target.kind != "llvm":
        return 0
    if "+avx512vnni" in target.features:
        return 16
    return 8 if "+avxvnni" in target.features else 0


def register_named(trace: str) -> None:
    """Register the instructions that ``trace`` names: who replays it may never have made one."""
    for lanes in LANES:
        if f'"{_name(lanes)}"' in trace:
            intrinsic(lanes)


def _name(lanes: int) -> str:
    return f"autotune.dot4_{lanes}"


@cache
def intrinsic(lanes: int) -> str:
    """Register the instruction for ``lanes`` with TVM, once; returns its name.

    What it stands for: C[i] += A[k] * B[i, k] for all i and k < 4, of uint8 A, int8 B, int32 C.
    """
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register(_name(lanes), _meaning(lanes), _code(lanes), override=True)
    return _name(lanes)


def _types(lanes: int) -> tuple[Any, Any, Any]:
    from tvm.script import tirx as T

    return (
        T.Buffer((4,), "uint8", offset_factor=1),
        T.Buffer((lanes, 4), "int8", offset_factor=1),
        T.Buffer((lanes,), "int32", offset_factor=1, scope="local"),
    )


def _meaning(lanes: int) -> Any:
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(lanes)

    @T.prim_func(s_tir=True)
    def meaning(
        A: a_type,
        B: b_type,
        C: c_type,
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    return meaning


def _code(lanes: int) -> Any:
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(lanes)
    bits = 32 * lanes
    sums, bytes_ = f"int32x{lanes}", f"int8x{4 * lanes}"

    @T.prim_func(s_tir=True)
    def code(
        A: a_type,
        B: b_type,
        C: c_type,
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            # LLVM 22 takes the numbers as bytes, where it used to take them four to a lane.
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(f"llvm.x86.avx512.vpdpbusd.{bits}"),
                C.vload([0], dtype=sums),
                T.reinterpret(
                    T.broadcast(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), lanes),
                    dtype=bytes_,
                ),
                B.vload([0, 0], dtype=bytes_),
                dtype=sums,
            )

    return code
