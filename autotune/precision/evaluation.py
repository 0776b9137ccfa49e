"""The user's own measure of a model: a function of what runs it, greater is better."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from autotune.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    Evaluate = Callable[[Run], float]


def evaluation(source: str | Evaluate) -> Evaluate:
    """The function that ``source`` names ("module:function"), or is; what it returns is checked.

    Modules of the working directory are found. Raises ``InputError`` where there is no such
    function; the function that is returned does where the user's raises or returns no number.
    """
    function, name = (_loaded(source), source) if isinstance(source, str) else (source, "")
    name = name or str(getattr(function, "__name__", function))
    if not callable(function):
        raise InputError(f"{name} is no function: name one that takes what runs the model")

    def evaluate(run: Run) -> float:
        try:
            found: Any = function(run)
        except Exception as error:  # whatever the user's code raises
            raise InputError(
                f"the evaluation function {name} failed: {type(error).__name__}: {error}"
            ) from error
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"the evaluation function {name} returned {found!r}: it has to be a number, the "
                "greater the better"
            )
        return value

    return evaluate


def _loaded(source: str) -> Any:
    module, colon, function = source.partition(":")
    if not (module and colon and function):
        raise InputError(f"{source!r} names no function: give it as module:function")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), function)
    except AttributeError:
        raise InputError(f"the module {module} has no function {function}") from None
    except Exception as error:  # what a module does when it is imported is the user's
        raise InputError(
            f"the module {module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(here)
