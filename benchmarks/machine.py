"""Where and when a figure was taken, and what else the machine did meanwhile."""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

PACKAGES = (
    *("autotune", "apache-tvm", "optuna", "xgboost-cpu", "numpy", "onnx", "onnxruntime"),
    *("openvino", "torch"),
)


def describe(threads: int | None = None) -> dict[str, Any]:
    """The processor as tuning sees it, versions of what is installed, and the date (UTC)."""
    from autotune.target import native
    from autotune.versions import installed

    versions = installed({package: package for package in PACKAGES})
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "target": asdict(native(threads)),
        "versions": {"python": platform.python_version(), **versions},
    }


def settings_of(options: argparse.Namespace, *without: str) -> dict[str, Any]:
    """What was asked for, JSON-able, less the options ``without``."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
        if key not in without
    }


class Others:
    """How many cores other processes kept busy inside a ``with`` block.

    ``cores`` is that number afterwards (0.0 is a quiet machine), None where the system does not
    tell. Only processes that the system shows can be seen: other guests of a shared host cannot.
    """

    cores: float | None = None

    def __enter__(self) -> Self:
        self._begun, self._busy, self._own = time.perf_counter(), _busy(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._begun
        busy = _busy()
        if busy is not None and self._busy is not None and passed > 0:
            others = busy - self._busy - (time.process_time() - self._own)
            self.cores = max(0.0, others / passed)


def _busy() -> float | None:
    """Seconds that all processors together have worked since the machine started."""
    import os

    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, _, _, irq, soft = map(int, first.split()[1:8])
    except (OSError, ValueError, IndexError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
