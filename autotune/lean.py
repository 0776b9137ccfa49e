"""Keeps torch out of processes that import TVM and have no tensors of torch.

TVM imports torch wherever it is installed, to exchange tensors with it and for benchmarks of its
own: two to four seconds in each process that measures, compiles or runs. Tensors of torch still
pass, by DLPack.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_IMPORTERS = ("tvm", "tvm_ffi")


def without_torch() -> None:
    """Let TVM be imported without torch from now on, unless torch has been imported before.

    Whoever imports torch itself afterwards gets it.
    """
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _IMPORTERS or "torch" in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module as another loader does, while torch cannot be imported."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        sys.modules["torch"] = None  # type: ignore[assignment]  # as Python marks what is not there
        try:
            self._loader.exec_module(module)
        finally:
            del sys.modules["torch"]
