"""Imports that do not hold what the importing functions hold."""

from __future__ import annotations

import importlib
import sys
import threading


def import_apart(name: str) -> None:
    """Import the module ``name`` in a thread of its own.

    optuna keeps the error of each optional package that it does not find, with its traceback, and
    so every frame below the import: whatever these functions hold, such as a model with all its
    weights, would stay as long as the process.
    """
    if name not in sys.modules:
        thread = threading.Thread(target=importlib.import_module, args=(name,))
        thread.start()
        thread.join()
