"""Load an artifact and run it: numpy, the TVM runtime, and nothing that tuning needs.

With ``TVM_USE_RUNTIME_LIB=1`` in the environment the compiler is not even loaded.

Inputs are numpy arrays or anything that speaks DLPack (torch tensors, for instance). Where they are
contiguous, writeable and aligned as ``empty`` aligns them, they are read where they are; others are
copied. Outputs are numpy arrays over the memory that the model wrote, which nothing else refers to.
bfloat16 numbers are always copied; numpy has them from ``ml_dtypes``, and what it saved and loaded
again, without their name, is taken for what it was.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune.dtypes import SHORT, numpy_dtype
from autotune.errors import ArtifactError, InputError
from autotune.machine import Machine

FORMAT = 2
"""Version of the manifest. A reader refuses later ones. In artifacts of format 1 all weights are
inside of the library."""

MANIFEST = "manifest.json"
LIBRARY = "lib.so"
WEIGHTS = "weights.npy"
"""Beside the library, or, where programs for several sizes share them, beside their directories."""

TILES = "cpu.tiles"
"""The search space of kernels that use AMX."""

ALIGNMENT = 64
"""Bytes: the compiled code may read whole vectors from where an input begins."""

# What LLVM calls a feature and the kernel something else; only features that code generated for
# float and integer loops is likely to use are looked at.
_FLAGS = {
    name: name
    for name in ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl")
} | {
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
}


@dataclass(frozen=True)
class Signature:
    """A named tensor of the model: shape in elements, dtype as numpy spells it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def empty(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """An array to be filled, aligned so that no model copies it. ``dtype`` as numpy spells it."""
    size = int(np.prod(shape, dtype=np.int64)) * numpy_dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(numpy_dtype(dtype)).reshape(shape)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of the artifact directory ``path``, which holds one size.

    Raises ``ArtifactError`` where there is none, it is damaged, of a format that is not ours, or of
    several sizes.
    """
    manifest = any_manifest(path)
    if sizes := manifest.get("sizes"):
        raise ArtifactError(
            f"{path} holds {len(sizes)} sizes: name one of them, such as {Path(path) / min(sizes)}"
        )
    return manifest


def any_manifest(path: str | Path) -> dict[str, Any]:
    """As ``read_manifest``, and of an artifact of several sizes what it holds."""
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format"]
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is not an artifact (it has no {MANIFEST}): make one with autotune compile"
        ) from None
    except NotADirectoryError:
        raise ArtifactError(f"{path} is not an artifact: give the directory, not a file") from None
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged: compile the artifact again") from error
    if version not in range(1, FORMAT + 1):
        raise ArtifactError(
            f"{path} has format {version} but this autotune reads {FORMAT} at most: "
            "compile the model again with this version"
        )
    return manifest  # type: ignore[no-any-return]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(
    path: str | Path, threads: int | None = None, weights: np.ndarray[Any, Any] | None = None
) -> Model:
    """Load the artifact directory ``path``, which holds one size.

    Every file is compared with its digest first, and the processor with what the code needs.
    ``threads`` is how many threads one inference uses, instead of what the artifact was made for.
    ``weights`` are those that it shares with other sizes, where they were read before. Raises
    ``ArtifactError``.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    if threads is not None and threads < 1:
        raise InputError(f"an inference needs at least one thread, not {threads}")
    try:
        for name, entry in manifest["files"].items():
            _check_file(directory / name, entry["sha256"])
        _check_processor(path, manifest["target"])
        if any(task.get("space") == TILES for task in manifest.get("tasks", ())):
            _check_tiles(path)
        inputs = _signatures(manifest["inputs"])
        outputs = _signatures(manifest["outputs"])
        count = int(threads or manifest["target"]["threads"])
        pieces = []
        if places := manifest.get("weights"):
            if WEIGHTS in manifest["files"]:
                weights = _mapped(directory / WEIGHTS)
            elif weights is None:
                weights = shared_weights(weights_beside(directory), manifest["shared_weights"])
            pieces = [_piece(weights, **place) for place in places]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{directory / MANIFEST} is damaged: compile the artifact again"
        ) from error
    return Model(directory / LIBRARY, inputs, outputs, count, manifest, pieces)


def weights_beside(directory: Path) -> Path:
    """The file that the artifact of one of several sizes shares with the others.

    Above it, or in it, where it was copied out of its artifact.
    """
    own = directory / WEIGHTS
    return own if own.exists() else directory.parent / WEIGHTS


def shared_weights(path: Path, digest: str) -> np.ndarray[Any, Any]:
    """The bytes that the sizes of an artifact share. Raises ``ArtifactError``."""
    _check_file(path, digest)
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    """The bytes of a file of weights; the memory is that of the file."""
    # Not read-only: a tensor of TVM's has to be one that could be written to.
    found: np.ndarray[Any, Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return found


def _piece(
    weights: np.ndarray[Any, Any], offset: int, shape: Sequence[int], dtype: str
) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=np.int64)) * numpy_dtype(dtype).itemsize
    return weights[offset : offset + size].view(numpy_dtype(dtype)).reshape(shape)


class Model:
    """A loaded artifact: call it with arrays by name.

    Safe to call from several threads; the calls are made one after another.
    """

    def __init__(
        self,
        library: Path,
        inputs: tuple[Signature, ...],
        outputs: tuple[Signature, ...],
        threads: int,
        manifest: Mapping[str, Any],
        weights: Sequence[np.ndarray[Any, Any]] = (),
    ) -> None:
        """Use ``load``, which checks what it reads."""
        import tvm
        import tvm_ffi

        self.inputs = inputs
        self.outputs = outputs
        self.threads = threads
        self.manifest = manifest
        self._copied = tvm.runtime.tensor
        self._borrowed = tvm_ffi.from_dlpack
        self._constant = frozenset(manifest.get("constant_outputs", ()))
        try:
            given = [tvm_ffi.from_dlpack(one, require_alignment=ALIGNMENT) for one in weights]
            self._machine = Machine(_opened(library), threads, given)
        except Exception as error:  # TVM's errors and the loader's have no common type
            raise ArtifactError(
                f"{library} cannot be loaded by TVM {tvm.__version__}: compile it again ({error})"
            ) from error

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Run one inference: arrays by input name to arrays by output name, which are yours.

        Raises ``InputError`` for a missing or unknown name, or a wrong shape or dtype.
        """
        tensors = self.tensors(inputs)
        return self.fetch(self.execute(tensors), tensors)

    def tensors(self, inputs: Mapping[str, Any]) -> list[Any]:
        """``inputs``, checked, as the TVM tensors that ``execute`` takes.

        They may share the memory of ``inputs``: see the top of this module.
        """
        unknown = sorted(set(inputs) - {spec.name for spec in self.inputs})
        if unknown:
            raise InputError(
                f"the model has no input {', '.join(unknown)}: "
                f"its inputs are {', '.join(spec.name for spec in self.inputs)}"
            )
        return [self._tensor(_checked(spec, inputs)) for spec in self.inputs]

    def _tensor(self, array: np.ndarray[Any, Any]) -> Any:
        # DLPack has no bfloat16 of numpy's.
        apart = array.dtype.name == SHORT
        if not apart and array.flags.writeable and array.ctypes.data % ALIGNMENT == 0:
            return self._borrowed(array, require_alignment=ALIGNMENT, require_contiguous=True)
        return self._copied(array)

    def execute(self, tensors: list[Any]) -> Any:
        """Run on tensors that are in place already: what a benchmark times."""
        return self._machine(*tensors)

    def observe(self, observer: Callable[..., int]) -> None:
        """As ``Machine.observe``."""
        self._machine.observe(observer)

    def fetch(self, result: Any, given: Sequence[Any] = ()) -> dict[str, np.ndarray[Any, Any]]:
        """What ``execute`` made of the tensors ``given``, as arrays by output name.

        Copied is only what others refer to as well, an input or a constant that is an output, and
        what numpy cannot share: bfloat16 numbers.
        """
        values = [result] if hasattr(result, "numpy") else list(result)
        shared = {tensor.data_ptr() for tensor in given}
        outputs = {}
        for spec, value in zip(self.outputs, values, strict=True):
            place = value.data_ptr()
            copy = spec.name in self._constant or place in shared or spec.dtype == SHORT
            shared.add(place)
            outputs[spec.name] = value.numpy() if copy else np.from_dlpack(value)
        return outputs


def _opened(library: Path) -> Any:
    """The library as a module of TVM's.

    The loader of the system gives a process what it has loaded under the same name before, also
    where an artifact was replaced by another one since. So each gets a name of its own.
    """
    import tvm_ffi

    try:
        folder = tempfile.TemporaryDirectory(prefix="autotune-")
    except OSError:  # nowhere to write: the first of its name it will be
        return tvm_ffi.load_module(str(library))
    with folder as name:
        link = Path(name) / LIBRARY
        link.symlink_to(library.absolute())
        return tvm_ffi.load_module(str(link))  # TVM's own function would resolve the link


def _checked(spec: Signature, inputs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    if spec.name not in inputs:
        raise InputError(f"input {spec.name} is missing: give an array of shape {_shape(spec)}")
    array = _array(spec, inputs[spec.name])
    if array.shape != spec.shape:
        raise InputError(
            f"input {spec.name} has shape {'x'.join(map(str, array.shape)) or 'scalar'} "
            f"but the model was compiled for {_shape(spec)}"
        )
    if array.dtype.name != spec.dtype:
        raise InputError(
            f"input {spec.name} has dtype {array.dtype.name} but the model takes {spec.dtype}: "
            f"convert it with astype({spec.dtype!r})"
        )
    # Not ascontiguousarray, which makes a scalar one-dimensional.
    return np.asarray(array, order="C")


def _array(spec: Signature, value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        array = np.asarray(value)
        nameless = spec.dtype == SHORT and array.dtype.str in ("|V2", "<V2")
        return array.view(numpy_dtype(SHORT)) if nameless else array
    try:
        if spec.dtype == SHORT:
            import tvm_ffi

            tensor: Any = tvm_ffi.from_dlpack(value)
            return np.asarray(tensor.numpy())
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"input {spec.name} cannot be read through DLPack ({error}): give an array of this "
            "machine's memory, of a dtype that numpy has"
        ) from error


def _shape(spec: Signature) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


def _signatures(entries: list[dict[str, Any]]) -> tuple[Signature, ...]:
    return tuple(Signature(e["name"], tuple(map(int, e["shape"])), e["dtype"]) for e in entries)


def _check_file(path: Path, expected: str) -> None:
    try:
        found = file_digest(path)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}): compile the artifact again"
        ) from error
    if found != expected:
        raise ArtifactError(f"{path} is not the file that was compiled: compile the artifact again")


def _check_processor(path: str | Path, target: Mapping[str, Any]) -> None:
    """Refuse code that this processor has no instructions for, before one of them kills us."""
    wanted = str(target["triple"]).split("-")[0].lower()
    here = platform.machine().lower()
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    if wanted and names.get(wanted, wanted) != names.get(here, here):
        raise ArtifactError(
            f"{path} is code for {wanted} but this machine is {here}: compile it for this machine"
        )
    flags = _flags()
    needed = (str(entry).removeprefix("+") for entry in target["features"])
    missing = sorted(name for name in needed if name in _FLAGS and _FLAGS[name] not in flags)
    if flags and missing:
        raise ArtifactError(
            f"{path} needs instructions that this processor lacks ({', '.join(missing)}): "
            "compile it for this machine"
        )


def _check_tiles(path: str | Path) -> None:
    """Ask for the room that AMX needs, as the code would by itself, before it is killed for it."""
    if not _tiles_allowed():
        raise ArtifactError(
            f"{path} uses AMX, but the system gives this process no room for its tiles: that takes "
            "Linux 5.16 or newer, and nothing that forbids the system call arch_prctl"
        )


def _tiles_allowed() -> bool:
    """What Linux answers to arch_prctl(ARCH_REQ_XCOMP_PERM, ARCH_XCOMP_TILEDATA)."""
    return bool(ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0)


def _flags() -> frozenset[str]:
    """The processor's features as the kernel names them; empty where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
