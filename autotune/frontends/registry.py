"""Which frontends there are: ours, and those that installed packages offer by entry point."""

from __future__ import annotations

from typing import Any

from autotune.errors import ModelError
from autotune.frontends.base import Frontend, path_of
from search_spaces.plugins import Kind, answer, made, usable

KIND = Kind("frontend", "autotune.frontends", made(Frontend))  # type: ignore[type-abstract]


def frontend_for(source: Any) -> Frontend:
    """The first frontend that takes ``source``, ours before others. Raises ``ModelError``."""
    frontends = usable(KIND)
    for frontend in frontends:
        if _takes(frontend, source):
            return frontend
    path = path_of(source)
    if path is not None and not path.exists():
        raise ModelError(f"there is no file {path}: check the path of the model")
    if path is not None and path.is_dir():
        raise ModelError(f"{path} is a directory: give the path of the model file in it")
    what = type(source).__name__ if path is None else path
    known = ", ".join(frontend.reads for frontend in frontends) or "nothing"
    raise ModelError(
        f"{what} is no model that can be read here, but {known}: export it to ONNX first, or "
        "install a frontend for it"
    )


def taken(source: Any) -> bool:
    """Whether some frontend takes ``source``."""
    return any(_takes(frontend, source) for frontend in usable(KIND))


def _takes(frontend: Frontend, source: Any) -> bool:
    return answer(frontend, lambda: frontend.takes(source), False)
