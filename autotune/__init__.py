"""Auto-tuning for deep-learning inference: ``tune``, ``compile`` and ``load`` are all most need.

Importing this package imports nothing else: what a name needs is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.api import TuneResult, tune
    from autotune.compilation import compile, lock, reproduce
    from autotune.errors import AutotuneError, UserError
    from autotune.inspection import Inspection, inspect
    from autotune.jobs.run import run_job
    from autotune.measure.tracker import Device
    from autotune.runtime import Model
    from autotune.several import CompiledSizes
    from autotune.sized import SizedModel, load
    from autotune.steps import CompileResult

__all__ = [
    "AutotuneError",
    "CompileResult",
    "CompiledSizes",
    "Device",
    "Inspection",
    "Model",
    "SizedModel",
    "TuneResult",
    "UserError",
    "__version__",
    "compile",
    "inspect",
    "load",
    "lock",
    "reproduce",
    "run_job",
    "tune",
]

_HOMES = {
    "AutotuneError": "autotune.errors",
    "UserError": "autotune.errors",
    "CompileResult": "autotune.steps",
    "Device": "autotune.measure.tracker",
    "Inspection": "autotune.inspection",
    "TuneResult": "autotune.api",
    "compile": "autotune.compilation",
    "inspect": "autotune.inspection",
    "lock": "autotune.compilation",
    "reproduce": "autotune.compilation",
    "run_job": "autotune.jobs.run",
    "tune": "autotune.api",
    "Model": "autotune.runtime",
    "load": "autotune.sized",
    "SizedModel": "autotune.sized",
    "CompiledSizes": "autotune.several",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("autotune")
        except PackageNotFoundError:  # a source tree that was never installed
            return "0+unknown"
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
