# mypy: disable-error-code="valid-type,index,attr-defined,untyped-decorator"
"""Instructions that add several products of short numbers to a 32-bit sum, in every lane.

vpdpbusd of AVX-512 VNNI and AVX-VNNI: four of unsigned by signed 8-bit numbers, without saturation.
vdpbf16ps of AVX-512 BF16: two of bfloat16 numbers; denormals count as zero. They are held in
integers of 16 bits: TVM would make floats of whatever is loaded as bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from search_spaces.task import Target

IMPORT = "pragma_import_llvm"
"""The annotation of a loop that brings a function in LLVM's language into the kernel."""


@dataclass(frozen=True)
class Dot:
    """A kind of instruction: ``depth`` products of ``types`` are added to one of the third.

    ``features`` says what LLVM calls the sets that it is of, and how many lanes it has there, the
    best first. ``kind`` is what the names of such sums begin with. ``widen`` makes of a number what
    it is in a sum, and ``add`` what C is with the products of A and B, for so many lanes of it.
    ``llvm`` is the name in LLVM's language, without its bits, and the type of a number there.
    """

    kind: str
    depth: int
    types: tuple[str, str, str]
    features: Mapping[str, int]
    widen: Callable[[Any], Any]
    add: Callable[[int, Any, Any, Any], Any]
    llvm: tuple[str, str]

    def lanes(self, target: Target) -> int:
        """Sums that one instruction adds to; 0 where ``target`` has none such."""
        if target.kind != "llvm":
            return 0
        return next((n for name, n in self.features.items() if name in target.features), 0)

    def intrinsic(self, lanes: int) -> str:
        """Register the instruction for ``lanes`` with TVM, once; returns its name."""
        return _registered(self.kind, lanes)

    def called(self, lanes: int) -> str:
        """What ``function`` defines."""
        return f"autotune_{self.kind}_dot_{lanes}"

    def function(self, lanes: int) -> str:
        """The instruction as a function of operands as TVM has them, in LLVM's language.

        Several kernels of one library may import it.
        """
        wide, (name, element) = self.depth * lanes, self.llvm
        sums = f"<{lanes} x {'i32' if self.types[2] == 'int32' else 'float'}>"
        given, taken = f"<{wide} x i{32 // self.depth}>", f"<{wide} x {element}>"
        name = f"{name}.{32 * lanes}"
        return f"""
declare {sums} @{name}({sums}, {taken}, {taken})
define linkonce_odr {sums} @{self.called(lanes)}({sums} %s, {given} %a, {given} %b) alwaysinline {{
  %x = bitcast {given} %a to {taken}
  %y = bitcast {given} %b to {taken}
  %r = call {sums} @{name}({sums} %s, {taken} %x, {taken} %y)
  ret {sums} %r
}}
"""

    @property
    def imported(self) -> bool:
        """Whether kernels import ``function``: TVM has no type for operands of LLVM's own."""
        return self.types[0] == "uint16"


def _as_integer(value: Any) -> Any:
    return value.astype("int32")


def _as_float(value: Any) -> Any:
    """The float32 whose upper half the 16 bits are."""
    from tvm import tirx

    return tirx.reinterpret("float32", value.astype("uint32") << tirx.const(16, "uint32"))


def _add_integers(lanes: int, c: Any, a: Any, b: Any) -> Any:
    from tvm.script import tirx as T

    sums, numbers = f"int32x{lanes}", f"int8x{4 * lanes}"
    # LLVM 22 takes the numbers as bytes, where it used to take them four to a lane.
    return T.call_llvm_pure_intrin(
        T.llvm_lookup_intrinsic_id(f"{INTEGER.llvm[0]}.{32 * lanes}"),
        c.vload([0], dtype=sums),
        T.reinterpret(
            T.broadcast(T.reinterpret(a.vload([0], "uint8x4"), dtype="int32"), lanes),
            dtype=numbers,
        ),
        b.vload([0, 0], dtype=numbers),
        dtype=sums,
    )


def _add_bfloat16(lanes: int, c: Any, a: Any, b: Any) -> Any:
    from tvm.script import tirx as T

    sums, numbers = f"float32x{lanes}", f"uint16x{2 * lanes}"
    pairs = T.broadcast(T.reinterpret(a.vload([0], "uint16x2"), dtype="int32"), lanes)
    return T.call_extern(
        sums,
        BFLOAT16.called(lanes),
        c.vload([0], dtype=sums),
        T.reinterpret(pairs, dtype=numbers),
        b.vload([0, 0], dtype=numbers),
    )


INTEGER = Dot(
    "integer",
    4,
    ("uint8", "int8", "int32"),
    {"+avx512vnni": 16, "+avxvnni": 8},
    _as_integer,
    _add_integers,
    ("llvm.x86.avx512.vpdpbusd", "i8"),
)
BFLOAT16 = Dot(
    "bfloat16",
    2,
    ("uint16", "uint16", "float32"),
    {"+avx512bf16": 16},
    _as_float,
    _add_bfloat16,
    ("llvm.x86.avx512bf16.dpbf16ps", "bfloat"),
)
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
    name = _name(dot, lanes)
    TensorIntrin.register(name, _meaning(dot, lanes), _code(dot, lanes), override=True)
    return name


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


def _code(dot: Dot, lanes: int) -> Any:
    """The same in one instruction."""
    from tvm.script import tirx as T

    a_type, b_type, c_type = _types(dot, lanes)
    depth, added = dot.depth, partial(dot.add, lanes)

    @T.prim_func(s_tir=True)
    def code(
        A: a_type,
        B: b_type,
        C: c_type,
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], B[0:lanes, 0:depth])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = added(C, A, B)

    return code
