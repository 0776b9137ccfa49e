"""Whether two artifacts are the same bytes, and where they first differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from autotune.runtime import MANIFEST, any_manifest

ORDER = ("versions", "model", "target", "graph", "inputs", "outputs", "tasks", "notes", "files")
"""Parts of a manifest: causes before what they cause."""

PIECE = 1 << 20


@dataclass(frozen=True)
class Reproduction:
    """What became of building an artifact again.

    ``differences`` are sentences, the cause of the others first; none where every byte is the same.
    ``files`` holds the SHA-256 of each file of the artifact.
    """

    artifact: str
    files: Mapping[str, str]
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every file is the same, byte for byte."""
        return not self.differences


def compare(artifact: Path, again: Path) -> Reproduction:
    """Compare ``artifact`` with ``again``, another build of it. Raises ``ArtifactError``."""
    there, here = any_manifest(artifact), any_manifest(again)
    found: list[str] = []
    digests: dict[str, str] = {}
    for name in sorted({*there.get("sizes", {}), *here.get("sizes", {})}):
        one = compare(artifact / name, again / name)  # what differs in a size comes first
        found += [f"{name}: {difference}" for difference in one.differences]
        digests |= {f"{name}/{file}": digest for file, digest in one.files.items()}
    if not found:
        found += _parts(there, here)
    files = {f.name for place in (artifact, again) for f in place.iterdir() if not f.is_dir()}
    for name in sorted(files):
        if name != MANIFEST or not found:
            found += _bytes(artifact / name, again / name)
    digests |= {name: str(entry["sha256"]) for name, entry in there["files"].items()}
    return Reproduction(str(artifact), digests, tuple(found))


def _parts(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    names = [*ORDER, *sorted({*there, *here} - {*ORDER})]
    for name in names:
        yield from _values(name, there.get(name), here.get(name))


def _values(where: str, there: Any, here: Any) -> Iterator[str]:
    """Each place at which two JSON values differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from _values(f"{where}.{key}", there.get(key), here.get(key))
    elif isinstance(there, list) and isinstance(here, list):
        for index, (one, other) in enumerate(zip_longest(there, here)):
            name = one.get("name") if isinstance(one, dict) else None
            yield from _values(f"{where}[{name or index}]", one, other)
    elif there != here:
        yield f"{where} is {_short(there)} in the artifact and {_short(here)} when built again"


def _short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _bytes(there: Path, here: Path) -> Iterator[str]:
    """The first byte at which two files differ."""
    if not (there.is_file() and here.is_file()):
        where = "in the artifact" if here.is_file() else "when built again"
        yield f"{there.name} is missing {where}"
        return
    with there.open("rb") as one, here.open("rb") as other:
        offset = 0
        while True:
            left, right = one.read(PIECE), other.read(PIECE)
            if left != right:
                pairs = enumerate(zip_longest(left, right))
                first = next(index for index, (a, b) in pairs if a != b)
                yield f"{there.name} differs from byte {offset + first} on"
                return
            if not left:
                return
            offset += len(left)
