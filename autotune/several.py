"""A model for several sizes of its inputs, on its way to one artifact.

Heavy imports are inside the functions, after the thread pool's size is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.errors import ArtifactError, ModelError
from autotune.steps import CompileResult, Prepared, Shapes, Status, checked, runs_here, tell, ways

if TYPE_CHECKING:
    from autotune.artifact.build import Compiled
    from autotune.frontends import ImportCheck
    from search_spaces.task import Task


@dataclass(frozen=True)
class CompiledSizes:
    """An artifact of several sizes: each is one by itself, by the name of its directory."""

    output: Path
    sizes: Mapping[str, CompileResult] = field(repr=False)

    @property
    def summary(self) -> str:
        """One line: "2 sizes: 1x64 (41 of 44 tasks tuned), 1x128 (44 of 44 tasks tuned)"."""
        each = (f"{name} ({size.summary})" for name, size in self.sizes.items())
        return f"{len(self.sizes)} sizes: {', '.join(each)}"


def each_size(shapes: Shapes | Sequence[Shapes] | None) -> list[Shapes | None]:
    """The shapes of every size; of one where no sequence is given."""
    return [shapes] if shapes is None or isinstance(shapes, Mapping) else list(shapes)


def together(models: Sequence[Prepared]) -> list[Task]:
    """The tasks of all sizes, each workload once: they are searched as those of one model."""
    found: dict[str, Task] = {}
    for task in (task for ready in models for task in ready.fused.tasks):
        known = found.get(task.workload.key)
        calls = task.calls + (0 if known is None else known.calls)
        found[task.workload.key] = replace(task, calls=calls)
    return list(found.values())


def built_sizes(
    models: Sequence[Prepared], output: str | Path, status: Status | None
) -> CompiledSizes:
    """As ``autotune.steps.built``, for several sizes of one model.

    A size whose program computes something else is built again more carefully, the others are not.
    """
    from autotune.artifact.build import SAFE, compiled
    from autotune.artifact.output import replacing
    from autotune.artifact.sizes import names_of, write_sizes

    ready = dict(zip(names_of([one.fused for one in models]), models, strict=True))
    left = {name: ways(one) for name, one in ready.items()}
    made: dict[str, Compiled] = {}
    notes: dict[str, list[str]] = {name: [] for name in ready}
    while True:
        for name, one in ready.items():
            if name in made:
                continue
            chosen, safe = left[name].pop(0)
            if one.compiled is not None and not notes[name]:
                made[name] = one.compiled
                continue
            tell(status, f"compiling {name}")
            made[name] = compiled(one.fused, chosen, safe=safe)
            notes[name] += [SAFE] if safe else []
        wrong = ""
        checks: dict[str, ImportCheck | None] = dict.fromkeys(ready)
        try:
            with replacing(Path(output)) as draft:
                manifests = write_sizes(made, draft, notes)
                for name, one in ready.items():
                    if runs_here(one.fused.target):
                        wrong = name
                        checks[name] = checked(one.imported, draft / name, one.fused, one.samples)
            break
        except ModelError as error:
            notes[wrong] = [*notes[wrong], f"a first build was discarded: {error}"]
            tell(status, f"{wrong} is wrong and is built again more carefully: {error}")
            del made[wrong]
            if not left[wrong]:
                raise ArtifactError(
                    f"{ready[wrong].fused.name} cannot be compiled for {wrong} to something that "
                    f"agrees with the original, so nothing was written; please report the model "
                    f"({error})"
                ) from error
    sizes = {
        name: CompileResult(Path(output) / name, manifests[name], one.check, checks[name])
        for name, one in ready.items()
    }
    return CompiledSizes(Path(output), sizes)
