"""Instructions that multiply whole tiles of short numbers: AMX.

A tile has up to 16 rows of 64 bytes. One instruction adds the product of two to a third, whose
numbers have 32 bits. There are eight tiles, and they stay where they are over a whole reduction,
like registers: so a kernel says by their numbers which it means, what shapes they have before it
begins (``Tiles.functions``), and that its results are wanted in memory when it is done.

Linux gives a process the room for tiles when it asks. The code asks by itself, once.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.cpu.dot import BFLOAT16, DOTS, INTEGER, Dot
from search_spaces.task import Target

ROWS, COLUMNS, COUNT = 16, 16, 8
"""Rows of a tile at most, 32-bit numbers in each, and tiles that there are."""

FEATURES = {INTEGER.kind: "+amx-int8", BFLOAT16.kind: "+amx-bf16"}
"""What LLVM calls the instructions, by the kind of sum."""

INSTRUCTIONS = {INTEGER.kind: "tdpbusd", BFLOAT16.kind: "tdpbf16ps"}

BEGIN = "autotune_tiles"
"""The annotation of a loop each turn of which begins with tiles of the shape that it names."""

STEPS = ("begin", "zero", "add", "store")
"""The functions of a kernel; see ``Tiles.functions``."""

# arch_prctl(ARCH_REQ_XCOMP_PERM, ARCH_XCOMP_TILEDATA)
_ASK, _PERMISSION, _TILE_DATA = 158, 0x1023, 18


def tiled_dot(name: str, target: Target) -> Dot | None:
    """The sum that a block called ``name`` is, where ``target`` adds up whole tiles of it."""
    dot = next((d for d in DOTS.values() if name.startswith(f"{d.kind}_")), None)
    return dot if dot is not None and has_tiles(dot, target) else None


def has_tiles(dot: Dot, target: Target) -> bool:
    """Whether ``target`` has instructions on tiles for sums like ``dot``."""
    wanted = {"+amx-tile", FEATURES[dot.kind]}
    return wanted <= set(target.features) and dot.lanes(target) == COLUMNS and _linux(target)


def _linux(target: Target) -> bool:
    return target.triple.startswith("x86_64") and "linux" in target.triple


def depth_of(dot: Dot) -> int:
    """Numbers in one row of a tile: steps of the reduction that one instruction does."""
    return ROWS * dot.depth


@dataclass(frozen=True)
class Tiles:
    """What a kernel keeps in tiles: ``down`` x ``across`` of sums, and what is multiplied.

    Each of ``height`` rows; ``stride`` is how far apart in the data the rows of a tile are.
    """

    kind: str
    height: int
    down: int
    across: int
    stride: int = 1

    @staticmethod
    def of(dot: Dot, rows: int, across: int, stride: int = 1) -> Tiles:
        """Those of ``rows`` altogether, shared out evenly; they do not fit where that cannot be."""
        down = -(-rows // ROWS)
        return Tiles(dot.kind, 0 if rows % down else rows // down, down, across, stride)

    @property
    def dot(self) -> Dot:
        """The kind of sum."""
        return DOTS[self.kind]

    @property
    def fits(self) -> bool:
        """Whether there are as many tiles, of such a size."""
        needed = self.down * self.across + self.down + self.across
        return needed <= COUNT and 0 < self.height <= ROWS

    @property
    def rows(self) -> int:
        """Rows of all tiles of sums."""
        return self.height * self.down

    @property
    def name(self) -> str:
        """What its functions are called after."""
        return f"{BEGIN}_{self.kind}_{self.height}_{self.down}x{self.across}"

    @staticmethod
    def named(name: str) -> Tiles:
        """The inverse of ``name``, but for the stride."""
        kind, height, shape = name.removeprefix(f"{BEGIN}_").rsplit("_", 2)
        down, across = shape.split("x")
        return Tiles(kind, int(height), int(down), int(across))

    @property
    def intrinsics(self) -> tuple[str, str, str]:
        """What TVM calls the steps: fill with zeros, add products, store."""
        name = self.name.replace("autotune_", "autotune.", 1)
        return f"{name}_zero", f"{name}_add_{self.stride}", f"{name}_store"

    @property
    def functions(self) -> str:
        """The functions that the steps call, in LLVM's language; kernels of one library share them.

        "begin" asks for permission and sets the shapes, "zero" clears the sums, "add" is one step
        of the reduction and "store" writes the sums to memory. Strides are in bytes.
        """
        name, down, across = self.name, self.down, self.across
        sums = [(i, j, i * across + j) for i in range(down) for j in range(across)]
        data, weights = down * across, down * across + down
        lines = [f"%lines = mul i64 %pitch, {self.height}"]
        load = "call void @llvm.x86.tileloadd64"
        add = list(lines)
        for i in range(down):
            add.append(f"%da{i} = mul i64 %lines, {i}")
            add.append(f"%a{i} = getelementptr i8, ptr %a, i64 %da{i}")
            add.append(f"{load}(i8 {data + i}, ptr %a{i}, i64 %pitch)")
        for j in range(across):
            add.append(f"%b{j} = getelementptr i8, ptr %b, i64 {64 * j}")
            add.append(f"{load}(i8 {weights + j}, ptr %b{j}, i64 %width)")
        multiply = f"llvm.x86.{INSTRUCTIONS[self.kind]}"
        add += [
            f"call void @{multiply}(i8 {at}, i8 {data + i}, i8 {weights + j})" for i, j, at in sums
        ]
        store = list(lines)
        for i, j, at in sums:
            store.append(f"%d{at} = mul i64 %lines, {i}")
            store.append(f"%r{at} = getelementptr i8, ptr %c, i64 %d{at}")
            store.append(f"%c{at} = getelementptr i8, ptr %r{at}, i64 {64 * j}")
            store.append(f"call void @llvm.x86.tilestored64(i8 {at}, ptr %c{at}, i64 %pitch)")
        zero = [f"call void @llvm.x86.tilezero(i8 {at})" for _, _, at in sums]
        return f"""
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilezero(i8)
declare void @llvm.x86.tileloadd64(i8, ptr, i64)
declare void @llvm.x86.tilestored64(i8, ptr, i64)
declare void @{multiply}(i8, i8, i8)
@{BEGIN}_asked = linkonce_odr global i32 0
@{name}_shapes = linkonce_odr constant [64 x i8] c"{_text(self.shapes)}", align 64
define linkonce_odr i32 @{name}_begin() alwaysinline {{
  %asked = load i32, ptr @{BEGIN}_asked
  %done = icmp ne i32 %asked, 0
  br i1 %done, label %ready, label %ask
ask:
  %answer = call i64 asm sideeffect "syscall",
    "={{rax}},{{rax}},{{rdi}},{{rsi}},~{{rcx}},~{{r11}},~{{memory}},~{{dirflag}},~{{fpsr}},~{{flags}}"
    (i64 {_ASK}, i64 {_PERMISSION}, i64 {_TILE_DATA})
  store i32 1, ptr @{BEGIN}_asked
  br label %ready
ready:
  call void @llvm.x86.ldtilecfg(ptr @{name}_shapes)
  ret i32 0
}}
{_function(f"{name}_zero", "", zero)}
{_function(f"{name}_add", "ptr %a, i64 %pitch, ptr %b, i64 %width", add)}
{_function(f"{name}_store", "ptr %c, i64 %pitch", store)}
"""

    @property
    def shapes(self) -> bytes:
        """The configuration as the processor reads it: palette 1, bytes in a row, rows."""
        found = bytearray(64)
        found[0] = 1
        used = self.down * self.across + self.down
        for tile in range(used + self.across):
            found[16 + 2 * tile] = 64
            found[48 + tile] = self.height if tile < used else ROWS
        return bytes(found)


def _function(name: str, parameters: str, lines: list[str]) -> str:
    body = "\n".join(f"  {line}" for line in (*lines, "ret i32 0"))
    return f"define linkonce_odr i32 @{name}({parameters}) alwaysinline {{\n{body}\n}}"


def _text(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)
