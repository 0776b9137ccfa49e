"""Which versions of packages are installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def installed(packages: Mapping[str, str]) -> dict[str, str]:
    """Versions of ``packages`` (distributions by the name to tell them by), of those there are.

    Ours is missing in a source tree that was never installed.
    """
    found = {}
    for name, package in packages.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found
