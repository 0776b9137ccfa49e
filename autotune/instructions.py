"""Which instruction sets this CPU really has, as LLVM names them.

The kernel reports flags, and a hypervisor may report one that traps. So one instruction of each is
run in a child process before it is trusted: an illegal one kills the child, not us.
"""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Flag of /proc/cpuinfo: (LLVM attribute, machine code of one instruction, encoded by GNU as).
# AMX code loads its tile configuration from the address in rdi.
X86: dict[str, tuple[str, str]] = {
    "pni": ("sse3", "f20fd0c0"),
    "ssse3": ("ssse3", "660f381cc0"),
    "sse4_1": ("sse4.1", "660f3838c0"),
    "sse4_2": ("sse4.2", "660f3837c0"),
    "popcnt": ("popcnt", "f30fb8c0"),
    "movbe": ("movbe", "0f38f00424"),
    "abm": ("lzcnt", "f30fbdc0"),
    "avx": ("avx", "c5fc58c0c5f877"),
    "f16c": ("f16c", "c4e27913c0"),
    "fma": ("fma", "c4e27db8c0c5f877"),
    "avx2": ("avx2", "c5fdfec0c5f877"),
    "bmi1": ("bmi", "c4e278f2c0"),
    "bmi2": ("bmi2", "c4e27bf5c0"),
    "avx_vnni": ("avxvnni", "c4e27d50c0c5f877"),
    "avx512f": ("avx512f", "62f17c4858c0c5f877"),
    "avx512bw": ("avx512bw", "62f17d48fcc0c5f877"),
    "avx512cd": ("avx512cd", "62f27d4844c0c5f877"),
    "avx512dq": ("avx512dq", "62f2fd4840c0c5f877"),
    "avx512vl": ("avx512vl", "62a17d20fec0c5f877"),
    "avx512_vnni": ("avx512vnni", "62f27d4850c0c5f877"),
    "avx512_bf16": ("avx512bf16", "62f27e4852c0c5f877"),
    "avx512_fp16": ("avx512fp16", "62f57c4858c0c5f877"),
    "avx512ifma": ("avx512ifma", "62f2fd48b4c0c5f877"),
    "avx512vbmi": ("avx512vbmi", "62f27d488dc0c5f877"),
    "avx512_vbmi2": ("avx512vbmi2", "62f27d4871c0c5f877"),
    "avx512_bitalg": ("avx512bitalg", "62f27d4854c0c5f877"),
    "avx512_vpopcntdq": ("avx512vpopcntdq", "62f27d4855c0c5f877"),
    "gfni": ("gfni", "660f38cfc0"),
    "amx_tile": ("amx-tile", "c4e2784907c4e27b49c0c4e27849c0"),
    "amx_bf16": ("amx-bf16", "c4e2784907c4e26a5cc1c4e27849c0"),
    "amx_int8": ("amx-int8", "c4e2784907c4e26b5ec1c4e27849c0"),
    "amx_fp16": ("amx-fp16", "c4e2784907c4e26b5cc1c4e27849c0"),
}

# On ARM the kernel's hwcaps are what programs dispatch on; there is no trap to fear.
AARCH64: dict[str, str] = {
    "asimd": "neon",
    "fphp": "fp-armv8",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "atomics": "lse",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

# What each level of the x86-64 ABI promises beyond the one before, of the names above.
LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("x86-64-v2", frozenset(["+sse3", "+ssse3", "+sse4.1", "+sse4.2", "+popcnt"])),
    (
        "x86-64-v3",
        frozenset(["+avx", "+avx2", "+bmi", "+bmi2", "+f16c", "+fma", "+lzcnt", "+movbe"]),
    ),
    (
        "x86-64-v4",
        frozenset(["+avx512f", "+avx512bw", "+avx512cd", "+avx512dq", "+avx512vl"]),
    ),
)

# What a feature that fails takes with it.
NEEDED_BY = {"avx": ("avx", "fma", "f16c"), "avx512f": ("avx512",), "amx-tile": ("amx",)}

PROBE = """
import ctypes, mmap, sys
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
tiles = bytearray(64)
tiles[0] = 1
for tile in range(8):
    tiles[16 + 2 * tile] = 64
    tiles[48 + tile] = 16
tiles = (ctypes.c_char * 64).from_buffer(tiles)
libc = ctypes.CDLL(None)
for entry in sys.argv[1:]:
    name, code = entry.split("=")
    if name.startswith("amx"):
        libc.syscall(158, 0x1023, 18)
    print(name, flush=True)
    code = bytes.fromhex(code) + b"\\xc3"
    page[: len(code)] = code
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(tiles))
print("end", flush=True)
"""


def machine() -> str:
    """This machine's architecture as LLVM spells it in a triple ("x86_64", "aarch64")."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def reported_flags() -> tuple[str, ...]:
    """The feature flags that the kernel reports for the first CPU; empty where it reports none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return tuple(value.split())
    return ()


@functools.cache
def native_features() -> tuple[str, ...]:
    """LLVM attributes ("+avx2") of this CPU, each tried out; in the order of the tables above."""
    flags = set(reported_flags())
    if machine() == "aarch64":
        return tuple(f"+{name}" for flag, name in AARCH64.items() if flag in flags)
    claimed = {name: code for flag, (name, code) in X86.items() if flag in flags}
    return tuple(f"+{name}" for name in probed(claimed))


def probed(codes: dict[str, str]) -> tuple[str, ...]:
    """Those names of ``codes`` (machine code in hex) whose instruction runs on this CPU.

    One child process in all when every instruction runs, one more for each that does not.
    """
    left = dict(codes)
    while left:
        failed = _first_failure(left)
        if failed is None:
            break
        if failed not in left:  # no child could run at all: trust nothing beyond the baseline
            return ()
        prefixes = NEEDED_BY.get(failed, ())
        left = {
            name: code
            for name, code in left.items()
            if name != failed and not (prefixes and name.startswith(prefixes))
        }
    return tuple(left)


def _first_failure(codes: dict[str, str]) -> str | None:
    entries: Sequence[str] = [f"{name}={code}" for name, code in codes.items()]
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROBE, *entries],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = child.stdout.split()
    if lines and lines[-1] == "end":
        return None
    return lines[-1] if lines else ""


def level_of(features: Sequence[str]) -> str:
    """The highest x86-64 level that ``features`` fulfil: a cpu name that LLVM knows."""
    name = "x86-64"
    for level, needed in LEVELS:
        if not needed <= set(features):
            break
        name = level
    return name


def features_of_level(name: str) -> tuple[str, ...]:
    """The features that an x86-64 level promises; empty for "x86-64" and for other names."""
    names = [level for level, _ in LEVELS]
    if name not in names:
        return ()
    upto = LEVELS[: names.index(name) + 1]
    wanted = {feature for _, needed in upto for feature in needed}
    return tuple(f"+{llvm}" for llvm, _ in X86.values() if f"+{llvm}" in wanted)
