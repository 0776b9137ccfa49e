"""``torch.compile(model, backend="autotune")``.

Installed, the package announces the backend to torch; importing this module does the same::

    compiled = torch.compile(model, backend="autotune", options={"database": "tuning.db"})
    with torch.no_grad():
        compiled(inputs)

It is for inference: what is to be differentiated runs by eager PyTorch. The options are those of
``autotune.dynamo.options.Options``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.dynamo.graph import Graph

NAME = "autotune"


def backend(
    module: Any,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Graph:
    """Called by TorchDynamo for each graph that it captures, once.

    Nothing is compiled before the graph is called: its weights and shapes are known then. Raises
    ``InputError`` for options that there are not.
    """
    from autotune.dynamo.graph import Graph
    from autotune.dynamo.options import Options
    from autotune.errors import InputError

    if mode not in (None, "default"):
        raise InputError(f"the backend has no mode {mode!r}: leave it out, and use options")
    return Graph(module, Options.parse(options))


def register() -> None:
    """Make the backend known to torch by its name, unless it is already."""
    from torch._dynamo.backends import registry

    if NAME not in registry.list_backends(exclude_tags=()):
        registry.register_backend(backend, name=NAME)


if find_spec("torch") is not None:
    register()
