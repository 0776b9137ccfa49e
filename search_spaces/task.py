"""The shared vocabulary: tensors, workloads, tasks, targets and candidates.

Everything here is a frozen dataclass of plain Python values. Nothing here imports TVM, so a
database, a cost model or a report can speak of tasks on a machine that has no compiler.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ParameterValue = bool | int | float | str
Parameters = Mapping[str, ParameterValue]


def digest_of(value: Any) -> str:
    """Return a hex digest of a JSON-able value, the same in every process and on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class TensorType:
    """Shape (elements along each axis) and dtype (TVM's spelling, "float32") of one tensor."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """As people write it: "1x24x24x64 float32"."""
        return f"{'x'.join(map(str, self.shape)) or 'scalar'} {self.dtype}"

    @property
    def bytes(self) -> int:
        """Size in memory, in bytes."""
        bits = int("".join(c for c in self.dtype if c.isdigit()) or 8)
        count = 1
        for extent in self.shape:
            count *= extent
        return count * max(bits, 8) // 8


@dataclass(frozen=True)
class Axis:
    """One iteration variable of a block: its extent and whether it is reduced over."""

    extent: int
    reduced: bool


@dataclass(frozen=True)
class Access:
    """How a block touches one buffer.

    ``buffer`` is the argument position (``>= 0``), or ``-1 - k`` for the k-th intermediate buffer.
    ``dims`` has an entry for each dimension of the buffer: the axes of the block (by position)
    that its index depends on. ``plain`` says that every index is one axis or a constant, so that
    neighbours along an axis are neighbours in the buffer.
    """

    buffer: int
    dims: tuple[tuple[int, ...], ...]
    plain: bool

    @property
    def axes(self) -> frozenset[int]:
        """Every axis that some index depends on."""
        return frozenset(axis for dim in self.dims for axis in dim)


@dataclass(frozen=True)
class Block:
    """One computation inside a fused function, in program order.

    ``ops`` counts the arithmetic and intrinsic calls of the body by name ("Mul", "tirx.exp", ...).
    """

    name: str
    axes: tuple[Axis, ...]
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    ops: tuple[tuple[str, int], ...]

    @property
    def reduction(self) -> bool:
        """Whether any axis is reduced over."""
        return any(axis.reduced for axis in self.axes)


@dataclass(frozen=True)
class Workload:
    """A fused PrimFunc, apart from the model it came from.

    ``key`` is a digest of the normalised function: equal for functions that differ only in names.
    ``function`` is the PrimFunc itself, as the JSON text of an IRModule whose one function is
    called "main" (``tvm.ir.load_json``). ``arguments`` are its parameters in order, the last
    ``outputs`` of which are written. ``constants`` are the positions of arguments that are known
    at compile time (weights); a schedule may change how those are laid out.
    """

    key: str
    name: str
    function: str = field(repr=False)
    arguments: tuple[TensorType, ...] = field(repr=False)
    outputs: int = 1
    constants: tuple[int, ...] = ()
    blocks: tuple[Block, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Task:
    """One unique workload of a model: what one tuning study is about.

    ``calls`` is how often one inference calls it; ``flops`` and ``bytes`` are of one call (bytes:
    every argument read or written once).
    """

    workload: Workload
    calls: int
    flops: float
    bytes: int


@dataclass(frozen=True)
class Target:
    """The hardware that code is made for, and how much of it may be used.

    ``triple``, ``cpu`` and ``features`` are LLVM's (features as "+avx2"); ``model`` is what the
    system calls the CPU. Cache sizes are bytes, of one core for L1 and L2 and shared for L3; 0
    means unknown. ``threads`` is how many threads one inference uses.
    """

    kind: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    model: str
    cores: int
    threads: int
    l1: int = 0
    l2: int = 0
    l3: int = 0
    device: str = ""

    @property
    def digest(self) -> str:
        """Digest of every field: part of each record's key."""
        return digest_of(asdict(self))

    @property
    def vector_bits(self) -> int:
        """Width of one vector register, in bits."""
        if "+avx512f" in self.features:
            return 512
        if "+avx2" in self.features or "+avx" in self.features:
            return 256
        return 128

    @property
    def second_cache(self) -> int:
        """Bytes of one core's second-level cache, a usual size where it is unknown."""
        return self.l2 or 262144

    @property
    def vector_registers(self) -> int:
        """How many vector registers the instruction set names."""
        return 32 if "+avx512f" in self.features or self.triple.startswith("aarch64") else 16

    def lanes(self, dtype: str = "float32") -> int:
        """Elements of ``dtype`` in one vector register."""
        return max(1, self.vector_bits // (8 * TensorType((1,), dtype).bytes))

    def vector_of(self, columns: int, dtype: str = "float32") -> int:
        """Elements of the vectors that cover ``columns`` contiguous elements best.

        The fewest registers, and among those the narrowest, which wastes least: 24 floats are two
        vectors of 16, but 8 are one of 8. Four at least.
        """
        widths = [width for width in (4, 8, 16, 32, 64) if width <= self.lanes(dtype)]
        return min(widths or [1], key=lambda width: (-(-columns // width), width))

    def tvm(self) -> dict[str, Any]:
        """The dict that ``tvm.target.Target`` takes."""
        spec: dict[str, Any] = {
            "kind": self.kind,
            "mtriple": self.triple,
            "num-cores": self.threads,
        }
        if self.cpu:
            spec["mcpu"] = self.cpu
        if self.features:
            spec["mattr"] = list(self.features)
        return spec


@dataclass(frozen=True)
class Candidate:
    """One point of one search space: what is proposed, measured and recorded."""

    space: str
    version: int
    parameters: Parameters = field(hash=False)

    @property
    def key(self) -> str:
        """Digest of space, version and parameters: equal candidates are never measured twice."""
        return digest_of([self.space, self.version, dict(self.parameters)])
