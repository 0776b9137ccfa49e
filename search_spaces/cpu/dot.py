# mypy: disable-error-code="valid-type,index,attr-defined,untyped-decorator"
"""Instructions that add several products of short numbers to a 32-bit sum, in every lane.

vpdpbusd of AVX-512 VNNI and AVX-VNNI: four of unsigned by signed 8-bit numbers, without saturation.
vdpbf16ps of AVX-512 BF16: two of bfloat16 numbers; denormals count as zero. They are held in
integers of 16 bits: TVM would make floats of whatever is loaded as bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from search_spaces.task import Target

IMPORT = "pragma_import_llvm"
"""The annotation of a loop that brings a function in LLVM's language into the kernel."""


@dataclass(frozen=True)
class Dot:
    """A kind of instruction: ``depth`` products of ``types`` are added to one of the third.

    ``features`` says what LLVM calls the sets that it is of, and how many lanes it has there, the
    best first. ``kind`` is what the names of such sums begin with. ``widen`` makes of a number what
    it is in a sum.
    """

    kind: str
    depth: int
    types: tuple[str, str, str]
    features: Mapping[str, int]
    widen: Callable[[Any], Any]

    def lanes(self, target: Target) -> int:
        """Sums that one instruction adds to; 0 where ``target`` has none such."""
        if target.kind != "llvm":
            return 0
        return next((n for name, n in self.features.items() if name in target.features), 0)

    def intrinsic(self, lanes: int) -> str:
        """Register the instruction for ``lanes`` with TVM, once; returns its name."""
        return _registered(self.kind, lanes)

    def llvm(self, lanes: int) -> str:
        """What a kernel that uses the instruction has to import; "" where that is nothing."""
        return _bfloat16_function(lanes) if self is BFLOAT16 else ""


def _as_integer(value: Any) -> Any:
    return value.astype("int32")


def _as_float(value: Any) -> Any:
    """The float32 whose upper half the 16 bits are."""
    from tvm import tirx

    return tirx.reinterpret("float32", value.astype("uint32") << tirx.const(16, "uint32"))


INTEGER = Dot(
    "integer",
    4,
    ("uint8", "int8", "int32"),
    {"+avx512vnni": 16, "+avxvnni": 8},
    _as_integer,
)
BFLOAT16 = Dot("bfloat16", 2, ("uint16", "uint16", "float32"), {"+avx512bf16": 16}, _as_float)
DOTS = {dot.kind: dot for dot in (INTEGER, BFLOAT16)}


def register_named(trace: str) -> None:
    """Register the instructions that ``trace`` names: who replays it may never have made one."""
    for dot in DOTS.values():
        for lanes in set(dot.features.values()):
            if f'"{_name(dot, lanes)}"' in trace:
                dot.intrinsic(lanes)


def _name(dot: Dot, lanes: int) -> str:
    suffix = "" if dot is INTEGER else f"_{dot.kind}"
    return f"autotune.dot{dot.depth}_{lanes}{suffix}"


@cache
def _registered(kind: str, lanes: int) -> str:
    from tvm.s_tir import TensorIntrin

    dot = DOTS[kind]
    code = _integer_code(lanes) if dot is INTEGER else _bfloat16_code(lanes)
    TensorIntrin.register(_name(dot, lanes), _meaning(dot, lanes), code, override=True)
    return _name(dot, lanes)


def _types(dot: Dot, lanes: int) -> tuple[Any, Any, Any]:
    from tvm.script import tirx as T

    one, other, sums = dot.types
    return (
        T.Buffer((dot.depth,), one, offset_factor=1),
        T.Buffer((lanes, dot.depth), other, offset_factor=1),
        T.Buffer((lanes,), sums, offset_factor=1, scope="local"),
    )


def _meaning(dot: Dot, lanes: int) -> Any:
    """C[i] += A[k] * B[i, k] for all i and k, in the type of C."""
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(dot, lanes)
    depth, wide = dot.depth, dot.widen

    @T.prim_func(s_tir=True)
    def meaning(
        A: a_type,
        B: b_type,
        C: c_type,
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, depth):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + wide(A[vk]) * wide(B[vi, vk])

    return meaning


def _integer_code(lanes: int) -> Any:
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(INTEGER, lanes)
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


def _bfloat16_code(lanes: int) -> Any:
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(BFLOAT16, lanes)
    sums, called = f"float32x{lanes}", f"autotune_bfloat16_dot_{lanes}"
    numbers, pairs = f"uint16x{2 * lanes}", f"int32x{lanes}"

    @T.prim_func(s_tir=True)
    def code(
        A: a_type,
        B: b_type,
        C: c_type,
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:2], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_extern(
                sums,
                called,
                C.vload([0], dtype=sums),
                T.broadcast(T.reinterpret(A.vload([0], "uint16x2"), dtype="int32"), lanes),
                T.reinterpret(B.vload([0, 0], dtype=numbers), dtype=pairs),
            )

    return code


def _bfloat16_function(lanes: int) -> str:
    """The instruction as a function of operands as TVM has them.

    TVM has no type for those of LLVM's own. Several kernels of one library import it.
    """
    sums, pairs, numbers = f"<{lanes} x float>", f"<{lanes} x i32>", f"<{2 * lanes} x bfloat>"
    name, own = f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", f"autotune_bfloat16_dot_{lanes}"
    return f"""
declare {sums} @{name}({sums}, {numbers}, {numbers})
define linkonce_odr {sums} @{own}({sums} %s, {pairs} %a, {pairs} %b) alwaysinline {{
  %x = bitcast {pairs} %a to {numbers}
  %y = bitcast {pairs} %b to {numbers}
  %r = call {sums} @{name}({sums} %s, {numbers} %x, {numbers} %y)
  ret {sums} %r
}}
"""
